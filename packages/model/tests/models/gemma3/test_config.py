from typing import Any

import pytest
from transformers import Gemma3TextConfig

from gemma_model.layers.kv_cache import bytes_per_slot
from gemma_model.layers.specs import Rope
from gemma_model.models.gemma3.config import Gemma3DecoderConfig
from gemma_wire import InvalidRequest

BARE: dict[str, Any] = {"model_type": "gemma3_text"}
PUBLISHED_4B: dict[str, Any] = {  # the text part leaves out what equals the defaults
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"model_type": "siglip_vision_model"},
}


def test_missing_keys_have_the_defaults_of_transformers() -> None:
    ours, theirs = Gemma3DecoderConfig.read(BARE), Gemma3TextConfig()
    for key in Gemma3DecoderConfig.__dataclass_fields__:
        if key != "rope":
            expected = getattr(theirs, key)
            assert getattr(ours, key) == (tuple(expected) if isinstance(expected, list) else expected), key
    for kind, parameters in theirs.rope_parameters.items():
        assert ours.rope[kind] == Rope(parameters["rope_theta"])


def test_the_published_4b() -> None:
    config = Gemma3DecoderConfig.read(PUBLISHED_4B)
    assert config.rope == {"full_attention": Rope(1e6, 8.0), "sliding_attention": Rope(1e4)}
    assert [i for i, kind in enumerate(config.layer_types) if kind == "full_attention"] == [5, 11, 17, 23, 29]
    assert config.attention["sliding_attention"].window == 1024
    assert config.attention["full_attention"].query_scale == 1 / 16
    per_column = 2 * 4 * 256 * 2  # keys and values of four heads, bf16
    assert bytes_per_slot(config.cache_spec, 131_072, 0, 2) == (5 * 131_072 + 29 * 1024) * per_column


@pytest.mark.parametrize(
    "own",
    [
        {"rope_theta": 5.0, "rope_local_base_freq": 3.0, "rope_scaling": {"type": "linear", "factor": 4}},
        {
            "rope_parameters": {
                "full_attention": {"rope_theta": 5.0, "rope_type": "linear", "factor": 4.0},
                "sliding_attention": {"rope_theta": 3.0, "rope_type": "default"},
            }
        },
    ],
    ids=["published", "new"],
)
def test_both_spellings_of_rotary_positions_are_read(own: dict[str, Any]) -> None:
    rope = Gemma3DecoderConfig.read({**BARE, **own}).rope
    assert rope == {"full_attention": Rope(5.0, 4.0), "sliding_attention": Rope(3.0)}


def test_the_pattern_of_layers_can_be_a_number_or_a_list() -> None:
    by_number = Gemma3DecoderConfig.read({**BARE, "num_hidden_layers": 4, "sliding_window_pattern": 2})
    types = ["sliding_attention", "full_attention"] * 2
    by_list = Gemma3DecoderConfig.read({**BARE, "num_hidden_layers": 4, "layer_types": types})
    assert by_number == by_list


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_activation", "relu"),
        ("attention_bias", True),
        ("tie_word_embeddings", False),
        ("use_bidirectional_attention", True),
        ("attn_logit_softcapping", 50.0),
        ("rope_scaling", {"rope_type": "yarn"}),
        ("rope_scaling", "linear"),
        ("rope_scaling", {"rope_type": "linear", "factor": 0}),
        ("rope_parameters", {"full_attention": {"rope_type": "yarn"}}),
        ("rope_parameters", {"full_attention": 3}),
        ("layer_types", ["full_attention"]),
        ("layer_types", ["chunked_attention"] * 26),
        ("sliding_window_pattern", 0),
        ("sliding_window", None),
        ("num_attention_heads", 6),
        ("head_dim", 7),
        ("hidden_size", "big"),
        ("intermediate_size", [8] * 26),
        ("query_pre_attn_scalar", -1),
        ("final_logit_softcapping", 0),
    ],
)
def test_unsupported_values_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Gemma3DecoderConfig.read({**BARE, key: value})
    named = "factor" if value == {"rope_type": "linear", "factor": 0} else key
    assert caught.value.field == f"text_config.{named}"


def test_another_text_model_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'gemma2' is not a Gemma 3 text model"):
        Gemma3DecoderConfig.read({"model_type": "gemma3", "text_config": {"model_type": "gemma2"}})
