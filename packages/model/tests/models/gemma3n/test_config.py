from typing import Any

import pytest
from transformers import Gemma3nTextConfig

from gemma_model.layers.kv_cache import bytes_per_slot
from gemma_model.layers.specs import Rope
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_wire import InvalidRequest

E4B: dict[str, Any] = {"model_type": "gemma3n_text"}  # the defaults are those of E4B
MIB = 2**20


def test_missing_keys_have_the_defaults_of_transformers() -> None:
    ours, theirs = Gemma3nDecoderConfig.read(E4B), Gemma3nTextConfig()
    for key in Gemma3nDecoderConfig.__dataclass_fields__:
        if key != "rope":
            expected = getattr(theirs, key)
            assert getattr(ours, key) == (tuple(expected) if isinstance(expected, list) else expected), key
    for kind, parameters in theirs.rope_parameters.items():
        assert ours.rope[kind] == Rope(parameters["rope_theta"])


def test_the_text_config_is_found_in_a_complete_config() -> None:
    whole = {"model_type": "gemma3n", "text_config": {**E4B, "hidden_size": 1234}}
    assert Gemma3nDecoderConfig.read(whole).hidden_size == 1234


def test_both_spellings_of_the_rotary_bases_are_read() -> None:
    published = Gemma3nDecoderConfig.read(
        {**E4B, "rope_theta": 5.0, "rope_local_base_freq": 3.0, "rope_scaling": None}
    )
    assert published.rope == {"full_attention": Rope(5.0), "sliding_attention": Rope(3.0)}
    parameters = {"full_attention": {"rope_theta": 7.0, "rope_type": "default"}}
    assert Gemma3nDecoderConfig.read({**E4B, "rope_parameters": parameters}).rope["full_attention"] == Rope(
        7.0
    )


def test_shared_layers_read_the_last_storing_layer_of_their_type() -> None:
    config = Gemma3nDecoderConfig.read(E4B)
    assert [spec.shared_with for spec in config.cache_spec[:20]] == [None] * 20
    assert {spec.shared_with for spec in config.cache_spec[20:]} == {18, 19}
    assert [config.kv_source(i) for i in (0, 19, 20, 24, 34)] == [0, 19, 18, 19, 19]


def test_the_cache_of_e4b_takes_272_mib_per_slot() -> None:
    config = Gemma3nDecoderConfig.read(E4B)
    assert bytes_per_slot(config.cache_spec, 32_768, 0, itemsize=2) == 272 * MIB
    assert bytes_per_slot(config.cache_spec, 16_384, 0, itemsize=2) == 16_384 * 8192 + 16 * MIB


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_activation", "relu"),
        ("attention_bias", True),
        ("tie_word_embeddings", False),
        ("use_bidirectional_attention", True),
        ("rope_scaling", {"rope_type": "yarn"}),
        ("rope_parameters", {"full_attention": {"rope_type": "yarn"}}),
        ("layer_types", ["full_attention", "chunked_attention"] + ["full_attention"] * 33),
        ("layer_types", ["full_attention"]),
        ("layer_types", ["full_attention"] * 20 + ["sliding_attention"] * 15),
        ("num_hidden_layers", 10**9),
        ("num_kv_shared_layers", 35),
        ("num_key_value_heads", 3),
        ("altup_active_idx", 4),
        ("intermediate_size", [1, 2]),
        ("activation_sparsity_pattern", [1.0] * 35),
        ("activation_sparsity_pattern", ["x"] * 35),
        ("activation_sparsity_pattern", "x"),
        ("intermediate_size", "big"),
        ("intermediate_size", [8] * 34 + [0]),
        ("layer_types", [["full_attention"]] * 35),
        ("rope_parameters", ["full_attention"]),
        ("rope_parameters", {"full_attention": 3}),
        ("hidden_size", "big"),
        ("head_dim", 256.5),
        ("num_key_value_heads", 0),
        ("vocab_size", True),
        ("sliding_window", None),
        ("rms_norm_eps", -1e-6),
        ("rope_theta", "much"),
        ("final_logit_softcapping", float("inf")),
    ],
)
def test_unsupported_tools_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Gemma3nDecoderConfig.read({**E4B, key: value})
    named = "num_kv_shared_layers" if value == ["full_attention"] * 20 + ["sliding_attention"] * 15 else key
    assert caught.value.field == f"text_config.{named}"


def test_another_architecture_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="llama"):
        Gemma3nDecoderConfig.read({"model_type": "llama"})
