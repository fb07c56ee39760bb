"""The bytes that a weight of a GGUF file takes in memory."""

from collections import defaultdict
from math import prod
from typing import Final

from gemma_launcher.tools.memory_planner.weight_format import EMBEDDING, PROJECTION, TABLE, WeightFormat
from gemma_wire.gguf import GGUF, TensorInfo

KINDS: Final = {
    "token_embd": EMBEDDING,
    "per_layer_token_embd": TABLE,
    "per_layer_model_proj": PROJECTION,
    "altup_proj": "altup_projections",
    "altup_unembd_proj": "altup_projections",
    **{f"attn_{name}": f"{name}_proj" for name in "qkv"},
    "attn_output": "o_proj",
    **{f"ffn_{name}": f"{name}_proj" for name in ("gate", "up", "down")},
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "laurel_l": "linear_left",
    "laurel_r": "linear_right",
}
"""The last part of a tensor's name → the kind of matrix."""

BITS_IN_MEMORY: Final = {
    "Q4_0": 4.5,
    "Q4_1": 5.0,
    "Q4_K": 5.0,
    "Q5_0": 8.5,
    "Q5_1": 12.0,
    "Q5_K": 12.0,
    "Q6_K": 9.0,
    "Q8_0": 8.5,
    "IQ4_NL": 8.5,
}
"""Bits of a weight in the formats of the CPU kernels (decision 019). Types that are not here become dense."""

DENSE_GGUF: Final = "GGUF, dense"


def format_of_gguf(model: GGUF, item: int) -> WeightFormat:
    """The format of a GGUF file.

    Args:
        model: its header.
        item: bytes of a dense weight.
    """
    sizes: defaultdict[str, float] = defaultdict(float)
    elements: defaultdict[str, int] = defaultdict(int)
    for name, info in model.tensors.items():
        kind = KINDS.get(name.removesuffix(".weight").rpartition(".")[2])
        if kind is not None:
            sizes[kind] += _bytes(info, item, in_file=kind == TABLE)
            elements[kind] += prod(info.shape)
    types = {info.kind.name for info in model.tensors.values()} & BITS_IN_MEMORY.keys()
    per_weight = {kind: sizes[kind] / elements[kind] for kind in sizes}
    return WeightFormat(f"GGUF, {' and '.join(sorted(types))}" if types else DENSE_GGUF, per_weight)


def _bytes(info: TensorInfo, item: int, *, in_file: bool) -> float:
    """Bytes of a tensor in memory; the per-layer table stays in the file."""
    if in_file:
        return info.nbytes
    bits = BITS_IN_MEMORY.get(info.kind.name)
    return prod(info.shape) * (item if bits is None else bits / 8)
