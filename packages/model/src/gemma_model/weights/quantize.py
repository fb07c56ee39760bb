"""Quantises matrices: symmetric integers of 4 or 8 bits, in groups of 32 elements of a row.

For each group, the scale s is searched that minimises the squared error, the sum of (w - s q)² with
q = clamp(round(w / s)). Let m be the element with the largest magnitude. Candidates are m / c for a few c,
so that m becomes c: the integers reach from -2^(bits - 1) to 2^(bits - 1) - 1, and a negative scale puts m at
the longer end. Each candidate's integers q then get the scale that is best for them, sum(w q) / sum(q²). The
scale with the smallest error is kept, and the integers are rounded once more with it.

Scales are bf16 numbers that fp16 represents exactly too.
"""

from typing import Literal

import torch
from torch import Tensor

from gemma_model.weights.quantized_tensor import ZERO_OF_4_BITS, QuantizedTensor

GROUP_SIZE = 32
CANDIDATES = {4: (-8.5, -8.0, -7.5, -7.0, 7.0), 8: (-128.0, 127.0)}
"""The integers, not always whole, that the largest element of a group becomes."""

TILE_ELEMENTS = 1 << 18
"""Elements that are quantised at a time; so few that they stay in the processor's cache."""

FP16_STEP = 2.0**-24
"""The distance of the smallest fp16 numbers."""

FP16_HAS_ALL_BF16 = 2.0**-17
"""From here on, up to its maximum, fp16 has every bf16 number."""


def can_quantize(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of that shape is a matrix of complete groups."""
    return len(shape) == 2 and shape[1] % GROUP_SIZE == 0


def quantize(matrix: Tensor, bits: Literal[4, 8]) -> QuantizedTensor:
    """A matrix ``[out, in]`` for which ``can_quantize`` holds, quantised."""
    out, width = matrix.shape
    quants = torch.empty((out, width * bits // 8), dtype=torch.uint8 if bits == 4 else torch.int8)
    scales = torch.empty((out, width // GROUP_SIZE), dtype=torch.bfloat16)
    rows = max(1, TILE_ELEMENTS // width)
    for at in range(0, out, rows):
        part = slice(at, at + rows)
        groups = matrix[part].float().view(-1, width // GROUP_SIZE, GROUP_SIZE)
        scale = best_scales(groups, bits)
        scales[part] = scale
        integers = _round(groups, scale, bits).view(-1, width)
        quants[part] = integers.to(torch.int8) if bits == 8 else _pack_nibbles(integers)
    return QuantizedTensor(quants, scales, None, bits)


def best_scales(groups: Tensor, bits: Literal[4, 8]) -> Tensor:
    """``[..., group size]`` fp32 → scales, ``[...]`` fp32 with values that bf16 and fp16 have."""
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)).squeeze(-1)
    best = gain = torch.tensor(0.0)
    for number, candidate in enumerate(CANDIDATES[bits]):
        integers = _round(groups, _representable(largest / candidate), bits)
        both, squares = (integers * groups).sum(-1), (integers * integers).sum(-1)
        scale = _representable(both / squares.clamp(min=1))
        saved = scale * (2 * both - scale * squares)  # sum of w² minus sum of (w - s q)²
        best = scale if number == 0 else torch.where(saved > gain, scale, best)
        gain = saved if number == 0 else torch.maximum(saved, gain)
    return best


def _round(groups: Tensor, scales: Tensor, bits: int) -> Tensor:
    limit = 1 << (bits - 1)
    return (groups / scales.unsqueeze(-1)).round_().clamp_(-limit, limit - 1)


def _representable(scales: Tensor) -> Tensor:
    """The nearest bf16 numbers; very small ones become the next fp16 number that is not smaller, never 0."""
    rounded = scales.to(torch.bfloat16).float()
    steps = (rounded.abs() / FP16_STEP).ceil().clamp(min=1)
    return torch.where(rounded.abs() < FP16_HAS_ALL_BF16, torch.copysign(steps * FP16_STEP, rounded), rounded)


def _pack_nibbles(integers: Tensor) -> Tensor:
    """Integers from -8 to 7, ``[n, in]`` → bytes, ``[n, in / 2]``."""
    stored = (integers + ZERO_OF_4_BITS).to(torch.uint8)
    return stored[:, ::2] | stored[:, 1::2] << 4
