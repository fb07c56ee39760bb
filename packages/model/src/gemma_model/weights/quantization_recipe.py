"""Which matrices of a checkpoint are quantised, and to how many bits.

AltUp, LAuReL, the router, norms and the encoders stay as they are: they are small, and errors in them reach
everything. Matrices whose rows are not complete groups stay as well.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal

from gemma_model.weights.quantize import GROUP_SIZE
from gemma_wire.quantization import METHOD
from gemma_wire.tensor_names import bare_name

Bits = Literal[4, 8]
BITS: Final[dict[str, Bits]] = {"int8": 8, "int4": 4}
OPTIONAL_BITS: Final[dict[str, Bits | None]] = {**BITS, "none": None}
EMBEDDING, TABLE, PROJECTION = "embed_tokens", "embed_tokens_per_layer", "per_layer_model_projection"
_IN_LAYERS = re.compile(
    r"layers\.\d+\.(?:self_attn\.|mlp\.|)"
    r"(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|per_layer_input_gate|per_layer_projection)"
)


@dataclass(frozen=True)
class Recipe:
    """The bits of each kind of matrix.

    Args:
        layers: of the matrices of the decoder's layers.
        embedding: of the token embedding, which is the output head as well; ``None``: as stored.
        per_layer_table: of the per-layer embeddings; ``None``: as stored.
    """

    layers: Bits
    embedding: Bits | None = 8
    per_layer_table: Bits | None = 8

    def bits_of(self, key: str) -> Bits | None:
        """The bits of a tensor; ``None``: it stays as it is.

        Args:
            key: its name in the checkpoint.
        """
        kind = kind_of(key)
        if kind is None:
            return None
        outside: dict[str, Bits | None] = {
            EMBEDDING: self.embedding,
            TABLE: self.per_layer_table,
            PROJECTION: 8,  # of all layers, and small compared with what it influences
        }
        return outside.get(kind, self.layers)


def kind_of(key: str) -> str | None:
    """The kind of a matrix that can be quantised, such as ``q_proj``; ``None``: it stays as it is."""
    module = bare_name(key).removesuffix(".weight")
    if module == key:  # no weight
        return None
    if module in (EMBEDDING, TABLE, PROJECTION):
        return module
    match = _IN_LAYERS.fullmatch(module)
    return match[1] if match else None


def quantization_section(bits_of_kind: dict[str, Bits]) -> dict[str, Any]:
    """``quantization_config`` of a checkpoint that we write.

    Args:
        bits_of_kind: kind of matrix → bits, of those that are quantised.
    """
    by_bits: dict[Bits, list[str]] = {}
    for kind, bits in bits_of_kind.items():
        by_bits.setdefault(bits, []).append(kind)
    groups = {f"group_{i}": _group(bits, by_bits[bits]) for i, bits in enumerate(sorted(by_bits))}
    return {
        "quant_method": METHOD,
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "config_groups": groups,
        "ignore": [],
        "kv_cache_scheme": None,
    }


def _group(bits: Bits, kinds: Collection[str]) -> dict[str, Any]:
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": GROUP_SIZE,
        "dynamic": False,
    }
    return {
        "targets": [_target(kind) for kind in kinds],
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
        "format": "pack-quantized",
    }


def _target(kind: str) -> str:
    if kind in (EMBEDDING, TABLE, PROJECTION):
        return rf"re:(.*\.)?{kind}$"
    return rf"re:(.*\.)?layers\.\d+\.(self_attn\.|mlp\.)?{kind}$"
