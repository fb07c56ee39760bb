"""``config.json`` of Gemma 3 text models, from the metadata of a GGUF file."""

from typing import Any, Final

from gemma_model.gguf_checkpoint.metadata import Metadata, shape_of
from gemma_wire.gguf import GGUF, refuse

SLIDING, FULL = "sliding_attention", "full_attention"
LAYERS_OF_27B: Final = 62


def build_config(model: GGUF) -> dict[str, Any]:
    """The configuration.

    Raises:
        InvalidRequest: a key or a tensor is missing, or has an unsupported value.
    """
    config = common_config(model, period=6)
    width, heads = config["hidden_size"], config["num_attention_heads"]
    is_27b = config["num_hidden_layers"] == LAYERS_OF_27B
    return config | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": width // heads if is_27b else config["head_dim"],  # no key has it
        "attn_logit_softcapping": None,
        "rope_parameters": config["rope_parameters"] | {FULL: _full_rope(model)},
    }


def common_config(model: GGUF, period: int) -> dict[str, Any]:
    """What Gemma 3 and Gemma 3n have in common.

    Args:
        model: its header.
        period: every layer with a multiple of this number is full, if the file does not say which are.

    Raises:
        InvalidRequest: as ``build_config``.
    """
    given = Metadata(model)
    layers = given.integer("block_count")
    vocabulary, _ = shape_of(model, "token_embd.weight", 2)
    softcap = given.get("final_logit_softcapping")
    return {
        "dtype": "bfloat16",
        "vocab_size": vocabulary,
        "hidden_size": given.integer("embedding_length"),
        "intermediate_size": _widths(given, layers),
        "num_hidden_layers": layers,
        "num_attention_heads": given.integer("attention.head_count"),
        "num_key_value_heads": given.integer("attention.head_count_kv"),
        "head_dim": _head_dim(model, given),
        "max_position_embeddings": given.integer("context_length"),
        "rms_norm_eps": given.positive("attention.layer_norm_rms_epsilon"),
        "sliding_window": given.integer("attention.sliding_window"),
        "layer_types": _layer_types(given, layers, period),
        "rope_parameters": {
            SLIDING: {
                "rope_type": "default",
                "rope_theta": given.positive("rope.freq_base_swa", 10_000.0),
            },
            FULL: {"rope_type": "default", "rope_theta": given.positive("rope.freq_base", 1_000_000.0)},
        },
        "final_logit_softcapping": None if softcap is None else given.positive("final_logit_softcapping"),
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    }


def _widths(given: Metadata, layers: int) -> int | list[int]:
    if isinstance(given.get("feed_forward_length"), int):
        return given.integer("feed_forward_length")
    widths = given.numbers("feed_forward_length", layers)
    return given.integer("feed_forward_length") if widths is None else [int(width) for width in widths]


def _head_dim(model: GGUF, given: Metadata) -> int:
    keys, values = given.integer("attention.key_length"), given.integer("attention.value_length")
    if keys != values:
        raise refuse(
            model.files[0], f"has keys of {keys} and values of {values} elements; they must be equal"
        )
    return keys


def _layer_types(given: Metadata, layers: int, period: int) -> list[str]:
    pattern = given.get("attention.sliding_window_pattern")
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        period, pattern = given.integer("attention.sliding_window_pattern"), None
    if pattern is None:
        return [SLIDING if (i + 1) % period else FULL for i in range(layers)]
    sliding = given.numbers("attention.sliding_window_pattern", layers) or ()
    return [SLIDING if one else FULL for one in sliding]


def _full_rope(model: GGUF) -> dict[str, Any]:
    """The rotary embedding of full layers, which the larger models scale linearly."""
    given = Metadata(model)
    rope: dict[str, Any] = {"rope_theta": given.positive("rope.freq_base", 1_000_000.0)}
    kind = given.get("rope.scaling.type")
    if kind in (None, "none"):
        return rope | {"rope_type": "default"}
    if kind != "linear":
        raise refuse(model.files[0], f"has rope.scaling.type {kind!r}; only none and linear are supported")
    return rope | {"rope_type": "linear", "factor": given.positive("rope.scaling.factor")}
