"""The decoder's configuration, from ``config.json``. Values that are not supported raise an error.

The names are those of the checkpoint. Missing values are transformers' defaults, which are those of E4B.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gemma_model.checkpoint import MAX_LAYERS, integer, positive, text_part
from gemma_model.layers.specs import LAYER_TYPES, AttentionSpec, LayerKVSpec, LayerType, Rope
from gemma_model.models.text_config import check_supported, per_layer, read_layer_types, read_rope
from gemma_wire import InvalidRequest


@dataclass(frozen=True)
class Gemma3nDecoderConfig:
    """The numbers of the decoder, with the names of the checkpoint. Per-layer values: one entry per layer."""

    vocab_size: int
    hidden_size: int
    intermediate_size: tuple[int, ...]
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    sliding_window: int
    layer_types: tuple[LayerType, ...]
    rope: Mapping[LayerType, Rope]
    final_logit_softcapping: float | None
    vocab_size_per_layer_input: int
    hidden_size_per_layer_input: int
    altup_active_idx: int
    altup_correct_scale: bool
    altup_num_inputs: int
    num_kv_shared_layers: int
    laurel_rank: int
    activation_sparsity_pattern: tuple[float, ...]

    @property
    def first_kv_shared_layer(self) -> int:
        """The number of layers that store keys and values; those after them share these."""
        return self.num_hidden_layers - self.num_kv_shared_layers

    def kv_source(self, layer: int) -> int:
        """The layer whose keys and values this one reads: itself, or the last storing one of its type."""
        if layer < self.first_kv_shared_layer:
            return layer
        wanted = self.layer_types[layer]
        return max(i for i in range(self.first_kv_shared_layer) if self.layer_types[i] == wanted)

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
            )
            for kind in self.layer_types
        }

    @property
    def cache_spec(self) -> tuple[LayerKVSpec, ...]:
        """What each layer keeps in the KV cache."""
        sources = map(self.kv_source, range(self.num_hidden_layers))
        return tuple(
            LayerKVSpec(
                self.num_key_value_heads,
                self.head_dim,
                window=self.attention[kind].window,
                shared_with=None if source == layer else source,
            )
            for layer, (kind, source) in enumerate(zip(self.layer_types, sources, strict=True))
        )

    @staticmethod
    def read(config: Mapping[str, Any]) -> "Gemma3nDecoderConfig":
        """From ``config.json`` of a complete checkpoint, or of its text part alone.

        Raises:
            InvalidRequest: naming the key whose value is not supported.
        """
        text = text_part(config)
        if text.get("model_type") != "gemma3n_text":
            raise InvalidRequest(
                f"{text.get('model_type')!r} is not a Gemma 3n text model", "config.model_type"
            )
        check_supported(config, text)
        parsed = _parse(text)
        _check(parsed)
        return parsed


def _parse(text: Mapping[str, Any]) -> Gemma3nDecoderConfig:
    layers = integer(text, "num_hidden_layers", 35, most=MAX_LAYERS)
    capped = text.get("final_logit_softcapping", 30.0) is not None
    sparsity = per_layer(text, "activation_sparsity_pattern", layers, _sparsity(layers))
    return Gemma3nDecoderConfig(
        vocab_size=integer(text, "vocab_size", 262_400),
        hidden_size=integer(text, "hidden_size", 2048),
        intermediate_size=tuple(
            integer({"intermediate_size": size}, "intermediate_size", 0)
            for size in per_layer(text, "intermediate_size", layers, [16_384] * layers)
        ),
        num_hidden_layers=layers,
        num_attention_heads=integer(text, "num_attention_heads", 8),
        num_key_value_heads=integer(text, "num_key_value_heads", 2),
        head_dim=integer(text, "head_dim", 256),
        max_position_embeddings=integer(text, "max_position_embeddings", 32_768),
        rms_norm_eps=positive(text, "rms_norm_eps", 1e-6),
        sliding_window=integer(text, "sliding_window", 512),
        layer_types=read_layer_types(text, layers, period=5),
        rope={kind: read_rope(text, kind) for kind in LAYER_TYPES},
        final_logit_softcapping=positive(text, "final_logit_softcapping", 30.0) if capped else None,
        vocab_size_per_layer_input=integer(text, "vocab_size_per_layer_input", 262_144),
        hidden_size_per_layer_input=integer(text, "hidden_size_per_layer_input", 256),
        altup_active_idx=integer(text, "altup_active_idx", 0, least=0),
        altup_correct_scale=bool(text.get("altup_correct_scale", True)),
        altup_num_inputs=integer(text, "altup_num_inputs", 4),
        num_kv_shared_layers=integer(text, "num_kv_shared_layers", 15, least=0),
        laurel_rank=integer(text, "laurel_rank", 64),
        activation_sparsity_pattern=sparsity,
    )


def _sparsity(layers: int) -> list[float]:
    sparse = 10 if layers > 10 else 0
    return [0.95] * sparse + [0.0] * (layers - sparse)


def _check(config: Gemma3nDecoderConfig) -> None:
    """Check that the numbers do not contradict each other.

    Raises:
        InvalidRequest: naming one that does.
    """
    shared, layers = config.num_kv_shared_layers, config.num_hidden_layers
    storing = config.layer_types[: config.first_kv_shared_layer]
    orphans = set(config.layer_types) - set(storing)
    complaints = {
        "num_kv_shared_layers": shared >= layers or bool(orphans),
        "num_key_value_heads": config.num_attention_heads % config.num_key_value_heads != 0,
        "altup_active_idx": not 0 <= config.altup_active_idx < config.altup_num_inputs,
        "sliding_window": config.sliding_window < 1,
        "head_dim": config.head_dim % 2 != 0,
        "activation_sparsity_pattern": not all(
            isinstance(p, int | float) and 0 <= p < 1 for p in config.activation_sparsity_pattern
        ),
    }
    for key, wrong in complaints.items():
        if wrong:
            raise InvalidRequest(
                f"{getattr(config, key)} contradicts the rest of the file", f"text_config.{key}"
            )
