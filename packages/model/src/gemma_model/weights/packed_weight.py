"""Quantised matrices in the formats of the C++ kernels (``cpu/packed_format.h``, ``cpu/packed_columns.h``).

A product rounds its inputs to int8: blocks of 32 elements with one scale each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gemma_model.cpu.kernels import ops
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_wire import InvalidRequest

BLOCK_COLUMNS, BLOCK_DEPTH = 8, 32
"""Rows and columns of a matrix ``[out, in]`` in one block: those of a product's columns and depth."""


@dataclass(frozen=True)
class PackedFormat:
    """A format of the kernels.

    Args:
        name: in ``cpu/packed_format.h``.
        row_bytes: bytes for ``BLOCK_DEPTH`` elements of a row, with their scales.
    """

    name: str
    row_bytes: int


INT4, INT8 = PackedFormat("Int4", 18), PackedFormat("Int8", 34)
INT4_OFFSETS, INT4_OFFSETS_FP32 = PackedFormat("Int4Offsets", 20), PackedFormat("Int4OffsetsFp32", 24)
INT8_GROUPS_16, INT8_OFFSETS_FP32 = PackedFormat("Int8Groups16", 36), PackedFormat("Int8OffsetsFp32", 48)
FP16 = torch.finfo(torch.float16)


def can_pack(matrix: QuantizedTensor) -> bool:
    """Whether the kernels can read the matrix: they read complete blocks."""
    out, width = matrix.shape
    return out % BLOCK_DEPTH == 0 and width % BLOCK_DEPTH == 0 and matrix.group_size % 16 == 0


def format_of(matrix: QuantizedTensor) -> PackedFormat:
    """The smallest format that represents the matrix.

    Scales and offsets that fp16 does not represent exactly are rounded to it where that changes a scale by at
    most 2^-11 of its value: a quarter of what rounding a weight to bf16 may change.
    """
    whole_blocks = matrix.group_size % BLOCK_DEPTH == 0
    scales, offsets = matrix.scales.float(), matrix.offsets
    if whole_blocks and offsets is None and torch.equal(scales.half().float(), scales):
        return INT4 if matrix.bits == 4 else INT8
    sizes = scales.abs()
    small = bool(((sizes > 0) & (sizes < FP16.tiny)).any())
    large = bool((sizes > FP16.max / 8).any()) or (
        offsets is not None and bool((offsets.abs() > FP16.max).any())
    )
    if whole_blocks and matrix.bits == 4:
        return INT4_OFFSETS_FP32 if small or large else INT4_OFFSETS
    return INT8_GROUPS_16 if offsets is None and not small and not large else INT8_OFFSETS_FP32


def _parts(matrix: QuantizedTensor) -> tuple[Tensor, Tensor, Tensor | None, int]:
    offsets = None if matrix.offsets is None else matrix.offsets.float().contiguous()
    return matrix.quants.contiguous(), matrix.scales.float().contiguous(), offsets, matrix.bits


class PackedWeight:
    """A packed matrix for products.

    Args:
        packed: uint8, see ``cpu/packed_format.h``.
        dtype: of the computation.
    """

    def __init__(self, packed: Tensor, dtype: torch.dtype) -> None:
        self.operand, self.dtype, self.device = packed, dtype, packed.device
        self.shape = packed.shape[0] * BLOCK_COLUMNS, packed.shape[1] * BLOCK_DEPTH
        self.nbytes = packed.nbytes

    @staticmethod
    def pack(matrix: QuantizedTensor, dtype: torch.dtype) -> "PackedWeight":
        """Pack a matrix for which ``can_pack`` holds."""
        block_bytes = format_of(matrix).row_bytes * BLOCK_COLUMNS
        packed: Tensor = ops.pack_matrix(*_parts(matrix), block_bytes)
        return PackedWeight(packed, dtype)

    def matmul(self, x: Tensor) -> Tensor:
        """``x @ self.T``: ``[M, in]`` → ``[M, out]``."""
        y: Tensor = ops.linear(x, self.operand)
        return y

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by their numbers: int64 ``[n]`` → ``[n, in]``."""
        found: Tensor = ops.packed_rows(self.operand, ids)
        return found.to(self.dtype)

    def row_range(self, begin: int, end: int) -> "PackedWeight":
        """The rows from ``begin`` to before ``end``, as views of the same tensors.

        Raises:
            InvalidRequest: that would cut a block.
        """
        _check_multiple(end, BLOCK_COLUMNS)
        return PackedWeight(self.operand[begin // BLOCK_COLUMNS : end // BLOCK_COLUMNS], self.dtype)

    def first_columns(self, count: int) -> "PackedWeight":
        """The first columns, as views of the same tensors.

        Raises:
            InvalidRequest: that would cut a block.
        """
        _check_multiple(count, BLOCK_DEPTH)
        return PackedWeight(self.operand[:, : count // BLOCK_DEPTH], self.dtype)


class PackedColumns:
    """A packed matrix of which single columns are read: ``down_proj`` of a sparse MLP.

    Args:
        packed: uint8, see ``cpu/packed_columns.h``.
        shape: ``(out, in)``.
        dtype: of the computation.
    """

    def __init__(self, packed: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.operand, self.shape, self.dtype, self.device = packed, shape, dtype, packed.device
        self.nbytes = packed.nbytes

    @staticmethod
    def pack(matrix: QuantizedTensor, dtype: torch.dtype) -> "PackedColumns":
        """Pack a matrix for which ``can_pack`` holds."""
        packed: Tensor = ops.pack_columns(*_parts(matrix), format_of(matrix).row_bytes)
        return PackedColumns(packed, matrix.shape, dtype)

    def matmul(self, x: Tensor) -> Tensor:
        """``x @ self.T``: ``[M, in]`` → ``[M, out]``; inputs are not rounded."""
        y: Tensor = ops.columns_linear(x, self.operand, self.shape[0])
        return y

    def first_columns(self, count: int) -> "PackedColumns":
        """The first columns, as views of the same tensors.

        Raises:
            InvalidRequest: that would cut a block.
        """
        _check_multiple(count, BLOCK_DEPTH)
        return PackedColumns(self.operand[: count // BLOCK_DEPTH], (self.shape[0], count), self.dtype)


def _check_multiple(count: int, block: int) -> None:
    if count % block:
        raise InvalidRequest(
            f"{count} neurons are not a multiple of {block}, the block size of quantised weights", "variants"
        )
