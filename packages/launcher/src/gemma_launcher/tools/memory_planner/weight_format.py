"""The bytes that a weight takes in memory, for dense and quantised checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gemma_launcher.errors import CommandError
from gemma_launcher.tools.memory_planner.model_shape import Gemma3nTextShape, TextShape
from gemma_launcher.tools.memory_planner.parameter_count import ParameterCounts, per_layer_row
from gemma_wire.quantization import QuantizationConfig, QuantizationScheme

EMBEDDING, TABLE, PROJECTION = "embed_tokens", "embed_tokens_per_layer", "per_layer_model_projection"
MODULES: Final[Mapping[str, str]] = {
    EMBEDDING: "embed_tokens",
    TABLE: "embed_tokens_per_layer",
    PROJECTION: "per_layer_model_projection",
    "altup_projections": "altup_projections.0",
    **{f"{name}_proj": f"layers.0.self_attn.{name}_proj" for name in "qkvo"},
    **{f"{name}_proj": f"layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")},
    **{name: f"layers.0.{name}" for name in ("per_layer_input_gate", "per_layer_projection")},
    **{name: f"layers.0.laurel.{name}" for name in ("linear_left", "linear_right")},
}
"""Kind of matrix → the name of one such module, for the targets of a configuration."""

KEPT: Final = ("altup_projections", "linear_left", "linear_right")
"""What GEMMA_QUANTIZE leaves as it is."""

GROUP_SIZE: Final = 32
WITH_SCALE: Final = {4: 18 / 32, 8: 34 / 32}
"""Bytes of a weight of so many bits, with its share of an fp16 scale for each 32."""

WITH_OFFSET: Final = {4: 24 / 32, 8: 48 / 32}
"""The same with fp32 scales and offsets, as the CPU kernels store asymmetric matrices."""


@dataclass(frozen=True)
class WeightFormat:
    """How the weights are stored.

    Args:
        name: for people; empty if they are dense.
        bytes_of_kind: bytes of a weight, by the kind of its matrix; other weights are dense.
        at_load: ``GEMMA_QUANTIZE``, if the file is dense and the weights are quantised when they are loaded.
    """

    name: str = ""
    bytes_of_kind: Mapping[str, float] = field(default_factory=dict)
    at_load: str = ""

    def embeddings(self, counts: ParameterCounts, item: int) -> int:
        """Bytes of the token embedding, if a dense weight has ``item`` bytes."""
        return round(counts.embeddings * self.bytes_of_kind.get(EMBEDDING, item))

    def layers(self, counts: ParameterCounts, item: int) -> int:
        """Bytes of the decoder layers and the projections around them."""
        dense = counts.layers - sum(counts.matrices.values())
        quantized = sum(n * self.bytes_of_kind.get(kind, item) for kind, n in counts.matrices.items())
        return round(dense * item + quantized)

    def per_layer_table(self, counts: ParameterCounts, item: int) -> int:
        """Bytes of the per-layer embeddings."""
        return round(counts.per_layer_table * self.bytes_of_kind.get(TABLE, item))

    @staticmethod
    def read(
        config: Mapping[str, Any], text: TextShape, quantize: str | None, table_in_file: bool
    ) -> "WeightFormat":
        """The format of a checkpoint.

        Args:
            config: its ``config.json``, as ``checkpoints.validation`` accepts it.
            text: the shape of its decoder.
            quantize: ``GEMMA_QUANTIZE``: int8, int4, or ``None``.
            table_in_file: the per-layer embeddings stay in the file.

        Raises:
            CommandError: the checkpoint is quantised already.
        """
        quantization = QuantizationConfig.read(config)
        if quantization is None:
            return quantized_at_load(text, quantize, table_in_file) if quantize else DENSE
        if quantize:
            raise CommandError(f"the checkpoint is quantised already: {_names(quantization)}")
        schemes = {kind: quantization.scheme_of(module) for kind, module in MODULES.items()}
        sizes = {kind: _bytes(scheme) for kind, scheme in schemes.items() if scheme is not None}
        used = {kind: size for kind, size in sizes.items() if size is not None}
        return WeightFormat(f"compressed-tensors, {_names(quantization)}", used)


DENSE: Final = WeightFormat()


def quantized_at_load(text: TextShape, quantize: str, table_in_file: bool) -> WeightFormat:
    """The format of a dense checkpoint with ``GEMMA_QUANTIZE``; rows must be complete groups."""
    bits = {"int8": 8, "int4": 4}[quantize]
    outside = (EMBEDDING, PROJECTION, *(() if table_in_file else (TABLE,)))
    inside = MODULES.keys() - {EMBEDDING, PROJECTION, TABLE, *KEPT}
    sizes = dict.fromkeys(inside, WITH_SCALE[bits]) | dict.fromkeys(outside, WITH_SCALE[8])
    widths: dict[str, tuple[int, ...]] = {
        TABLE: (per_layer_row(text),),
        "o_proj": (text.num_attention_heads * text.head_dim,),
        "down_proj": text.intermediate_size,
    }
    if isinstance(text, Gemma3nTextShape):
        widths["per_layer_projection"] = (text.hidden_size_per_layer_input,)
    even = {
        kind: size
        for kind, size in sizes.items()
        if all(width % GROUP_SIZE == 0 for width in widths.get(kind, (text.hidden_size,)))
    }
    return WeightFormat(f"GEMMA_QUANTIZE={quantize}", even, quantize)


def _bytes(scheme: QuantizationScheme) -> float | None:
    """Bytes of a weight; ``None``: it becomes dense when it is loaded."""
    if scheme.type == "float":
        return None
    bits = scheme.bits if scheme.packed else 8
    return (WITH_SCALE if scheme.symmetric else WITH_OFFSET)[bits]


def _names(quantization: QuantizationConfig) -> str:
    return " and ".join(dict.fromkeys(scheme.name for scheme in quantization.schemes.values()))
