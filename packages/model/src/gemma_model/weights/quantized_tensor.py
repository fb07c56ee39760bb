"""A quantised matrix as checkpoints store it: integers, and a scale for each group of them along a row.

All supported formats are this: compressed-tensors of 4 and 8 bits, and the block types of GGUF.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gemma_wire import InvalidRequest

ZERO_OF_4_BITS = 8
"""The value of a nibble that stands for zero in a matrix without offsets."""


@dataclass(frozen=True)
class QuantizedTensor:
    """A matrix ``[out, in]`` whose element (o, i) is ``scales[o, i // group_size] * q``, plus an offset.

    Args:
        quants: 8 bits: q as int8 ``[out, in]``. 4 bits: uint8 ``[out, in / 2]``, element 2j in the low nibble
            of byte j and element 2j + 1 in its high nibble; q is the nibble if there are offsets, and the
            nibble - 8 otherwise.
        scales: ``[out, in / group_size]``; fp32, fp16 or bf16.
        offsets: fp32, the shape of ``scales``: added to each element of the group; ``None``: nothing.
        bits: of an integer.
    """

    quants: Tensor
    scales: Tensor
    offsets: Tensor | None
    bits: Literal[4, 8]

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        out, width = self.quants.shape
        return out, width * 8 // self.bits

    @property
    def group_size(self) -> int:
        """Elements of a row that share a scale."""
        return self.shape[1] // self.scales.shape[1]

    @property
    def nbytes(self) -> int:
        """The size of integers, scales and offsets."""
        offsets = 0 if self.offsets is None else self.offsets.nbytes
        return self.quants.nbytes + self.scales.nbytes + offsets

    def rows(self, which: slice | Tensor) -> "QuantizedTensor":
        """Some rows: a range of them, or those with the numbers in an int64 tensor."""
        offsets = None if self.offsets is None else self.offsets[which]
        return replace(self, quants=self.quants[which], scales=self.scales[which], offsets=offsets)

    def first_columns(self, count: int) -> "QuantizedTensor":
        """The first ``count`` columns.

        Raises:
            InvalidRequest: that would cut a group.
        """
        groups, rest = divmod(count, self.group_size)
        if rest:
            raise InvalidRequest(
                f"{count} neurons are not a multiple of {self.group_size}, the group size of the weights",
                "variants",
            )
        offsets = None if self.offsets is None else self.offsets[:, :groups]
        quants = self.quants[:, : count * self.bits // 8]
        return replace(self, quants=quants, scales=self.scales[:, :groups], offsets=offsets)

    def integers(self) -> Tensor:
        """Q of each element, int8 ``[out, in]``."""
        if self.bits == 8:
            return self.quants
        nibbles = torch.stack((self.quants & 15, self.quants >> 4), dim=-1).flatten(-2).to(torch.int8)
        return nibbles if self.offsets is not None else nibbles - ZERO_OF_4_BITS

    def to(self, device: torch.device) -> "QuantizedTensor":
        """A copy on a device."""
        offsets = None if self.offsets is None else self.offsets.to(device, copy=True)
        quants, scales = (part.to(device, copy=True) for part in (self.quants, self.scales))
        return replace(self, quants=quants, scales=scales, offsets=offsets)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix, ``[out, in]``, computed in fp32 and rounded once."""
        grouped = self.integers().float().view(*self.scales.shape, self.group_size)
        values = grouped * self.scales.float().unsqueeze(-1)
        if self.offsets is not None:
            values = values + self.offsets.unsqueeze(-1)
        return values.flatten(1).to(dtype)


def concatenate(matrices: Sequence[QuantizedTensor]) -> QuantizedTensor:
    """Matrices of one width, one below the other, in a format that represents all exactly."""
    if len(matrices) == 1:
        return matrices[0]
    if len({(m.bits, m.group_size, m.offsets is None, m.scales.dtype) for m in matrices}) > 1:
        group = min(m.group_size for m in matrices)
        matrices = [_generalize(m, group) for m in matrices]
    quants, scales = (torch.cat([getattr(m, part) for m in matrices]) for part in ("quants", "scales"))
    offsets = [m.offsets for m in matrices if m.offsets is not None]
    return replace(matrices[0], quants=quants, scales=scales, offsets=torch.cat(offsets) if offsets else None)


def _generalize(m: QuantizedTensor, group_size: int) -> QuantizedTensor:
    """The same matrix with 8 bits, fp32 scales and offsets, and smaller groups."""
    scales = m.scales.float().repeat_interleave(m.group_size // group_size, dim=1)
    offsets = torch.zeros_like(scales)
    if m.offsets is not None:
        offsets = m.offsets.repeat_interleave(m.group_size // group_size, dim=1)
    return QuantizedTensor(m.integers(), scales, offsets, 8)
