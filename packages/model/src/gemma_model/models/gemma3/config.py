"""The decoder's configuration, from ``config.json``. Values that are not supported raise an error.

The names are those of the checkpoint. Missing values are transformers' defaults; the published files of 4B
and larger models leave out what equals them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gemma_model.checkpoint import MAX_LAYERS, integer, positive, text_part
from gemma_model.families import GEMMA3
from gemma_model.layers.specs import LAYER_TYPES, AttentionSpec, LayerKVSpec, LayerType, Rope
from gemma_model.models.text_config import check_supported, read_layer_types, read_rope
from gemma_wire import InvalidRequest

NORM_OFFSET = 1.0
"""Added to the weights of all norms, which the checkpoint stores as differences from 1."""


@dataclass(frozen=True)
class Gemma3DecoderConfig:
    """The numbers of the decoder, with the names of the checkpoint."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    query_pre_attn_scalar: float
    sliding_window: int
    layer_types: tuple[LayerType, ...]
    rope: Mapping[LayerType, Rope]
    final_logit_softcapping: float | None

    @property
    def attention(self) -> Mapping[LayerType, AttentionSpec]:
        """What the attention layers of each type have in common."""
        return {
            kind: AttentionSpec(
                self.num_attention_heads,
                self.num_key_value_heads,
                self.head_dim,
                self.rope[kind],
                window=self.sliding_window if kind == "sliding_attention" else None,
                query_scale=self.query_pre_attn_scalar**-0.5,
                norm_offset=NORM_OFFSET,
                norm_values=False,
            )
            for kind in self.layer_types
        }

    @property
    def cache_spec(self) -> tuple[LayerKVSpec, ...]:
        """What each layer keeps in the KV cache."""
        return tuple(
            LayerKVSpec(self.num_key_value_heads, self.head_dim, window=self.attention[kind].window)
            for kind in self.layer_types
        )

    @staticmethod
    def read(config: Mapping[str, Any]) -> "Gemma3DecoderConfig":
        """From ``config.json`` of a complete checkpoint, or of its text part alone.

        Raises:
            InvalidRequest: naming the key whose value is not supported.
        """
        text = text_part(config)
        if text.get("model_type") != "gemma3_text":
            raise InvalidRequest(
                f"{text.get('model_type')!r} is not a Gemma 3 text model", "config.model_type"
            )
        check_supported(config, text)
        parsed = _parse(text)
        for key, divisor in (("num_attention_heads", parsed.num_key_value_heads), ("head_dim", 2)):
            if (value := getattr(parsed, key)) % divisor:
                raise InvalidRequest(f"{value} is not a multiple of {divisor}", f"text_config.{key}")
        return parsed


def _parse(text: Mapping[str, Any]) -> Gemma3DecoderConfig:
    layers = integer(text, "num_hidden_layers", 26, most=MAX_LAYERS)
    capped = text.get("final_logit_softcapping") is not None
    return Gemma3DecoderConfig(
        vocab_size=integer(text, "vocab_size", GEMMA3.vocab_size),
        hidden_size=integer(text, "hidden_size", 2304),
        intermediate_size=integer(text, "intermediate_size", 9216),
        num_hidden_layers=layers,
        num_attention_heads=integer(text, "num_attention_heads", 8),
        num_key_value_heads=integer(text, "num_key_value_heads", 4),
        head_dim=integer(text, "head_dim", 256),
        max_position_embeddings=integer(text, "max_position_embeddings", GEMMA3.max_position_embeddings),
        rms_norm_eps=positive(text, "rms_norm_eps", 1e-6),
        query_pre_attn_scalar=positive(text, "query_pre_attn_scalar", 256),
        sliding_window=integer(text, "sliding_window", 4096),
        layer_types=read_layer_types(text, layers, integer(text, "sliding_window_pattern", 6)),
        rope={kind: read_rope(text, kind) for kind in LAYER_TYPES},
        final_logit_softcapping=positive(text, "final_logit_softcapping", 0) if capped else None,
    )
