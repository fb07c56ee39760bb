"""Configurations from metadata."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gemma_model.gguf_checkpoint import gemma3, gemma3n
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_wire import InvalidRequest
from gemma_wire.gguf import GGUF, TensorInfo
from gemma_wire.gguf_types import BLOCK_TYPES

FILE = Path("model.gguf")
SLIDING, FULL = "sliding_attention", "full_attention"
GEMMA3 = {  # those of the published 270M
    "context_length": 32768,
    "embedding_length": 640,
    "block_count": 18,
    "feed_forward_length": 2048,
    "attention.head_count": 4,
    "attention.layer_norm_rms_epsilon": 9.999999974752427e-07,
    "attention.key_length": 256,
    "attention.value_length": 256,
    "rope.freq_base": 1000000.0,
    "attention.sliding_window": 512,
    "attention.head_count_kv": 1,
}
GEMMA3N = GEMMA3 | {
    "block_count": 10,
    "altup.active_idx": 0,
    "altup.num_inputs": 4,
    "attention.shared_kv_layers": 4,
    "embedding_length_per_layer_input": 256,
    "activation_sparsity_scale": [1.6448535919189453, *[float("-inf")] * 9],
}
SHAPES = {
    "token_embd.weight": (262400, 640),
    "per_layer_token_embd.weight": (262400, 2560),
    "blk.0.laurel_l.weight": (64, 640),
}


def model(
    architecture: str, keys: dict[str, Any], shapes: Mapping[str, tuple[int, ...]] | None = None
) -> GGUF:
    metadata = {"general.architecture": architecture}
    metadata |= {f"{architecture}.{key}": value for key, value in keys.items() if value is not None}
    infos = {
        name: TensorInfo(name, shape, BLOCK_TYPES[0], FILE, 0) for name, shape in (shapes or SHAPES).items()
    }
    return GGUF((FILE,), metadata, infos)


def test_gemma3() -> None:
    config = gemma3.build_config(model("gemma3", GEMMA3))
    assert config["model_type"] == "gemma3_text"
    assert (config["vocab_size"], config["hidden_size"], config["head_dim"]) == (262400, 640, 256)
    assert config["rms_norm_eps"] == 1e-6
    assert config["layer_types"] == ([SLIDING] * 5 + [FULL]) * 3
    assert config["query_pre_attn_scalar"] == 256
    assert config["final_logit_softcapping"] is None
    assert config["rope_parameters"] == {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "default", "rope_theta": 1_000_000.0},
    }


def test_the_larger_gemma3_scale_the_positions_of_full_layers() -> None:
    keys = GEMMA3 | {"block_count": 62, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
    config = gemma3.build_config(
        model("gemma3", keys | {"attention.head_count": 32, "embedding_length": 5376})
    )
    assert config["rope_parameters"][FULL] == {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
    assert config["query_pre_attn_scalar"] == 168
    with pytest.raises(InvalidRequest, match=r"rope\.scaling\.type 'yarn'; only none and linear"):
        gemma3.build_config(model("gemma3", keys | {"rope.scaling.type": "yarn"}))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, [SLIDING, SLIDING, SLIDING, SLIDING, FULL] * 2),
        (2, [SLIDING, FULL] * 5),
        ([True, False, False, True, False] * 2, [SLIDING, FULL, FULL, SLIDING, FULL] * 2),
    ],
)
def test_gemma3n(pattern: object, expected: list[str]) -> None:
    config = gemma3n.build_config(model("gemma3n", GEMMA3N | {"attention.sliding_window_pattern": pattern}))
    text = Gemma3nDecoderConfig.read(config)
    assert list(text.layer_types) == expected
    assert (text.vocab_size, text.vocab_size_per_layer_input) == (262400, 262144)
    assert (text.laurel_rank, text.num_kv_shared_layers, text.altup_num_inputs) == (64, 4, 4)
    assert text.activation_sparsity_pattern == (0.95, *(0.0,) * 9)
    assert text.final_logit_softcapping == 30.0
    assert not text.altup_correct_scale


def test_gemma3n_with_other_values() -> None:
    keys = {
        "feed_forward_length": [2048] * 9 + [1024],
        "final_logit_softcapping": 20.0,
        "rope.freq_base_swa": 20_000.0,
        "activation_sparsity_scale": None,
    }
    shapes = SHAPES | {"per_layer_token_embd.weight": (262144, 2560), "token_embd.weight": (262144, 640)}
    text = Gemma3nDecoderConfig.read(gemma3n.build_config(model("gemma3n", GEMMA3N | keys, shapes)))
    assert text.intermediate_size == (*(2048,) * 9, 1024)
    assert text.final_logit_softcapping == 20.0
    assert {kind: rope.theta for kind, rope in text.rope.items()} == {SLIDING: 20_000.0, FULL: 1_000_000.0}
    assert text.activation_sparsity_pattern == (0.0,) * 10
    assert (text.vocab_size, text.vocab_size_per_layer_input) == (262144, 262144)
