"""The matrices of linear layers and embeddings, dense or quantised, with the operations that layers need."""

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from gemma_model.weights.quantized_tensor import QuantizedTensor

TILE_ELEMENTS = 1 << 22
"""Elements of a quantised matrix that are dequantised at a time."""


class Weight(Protocol):
    """A matrix ``[out, in]``."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the computation with it."""

    @property
    def device(self) -> torch.device:
        """Where it is."""

    @property
    def nbytes(self) -> int:
        """Its size in memory."""

    @property
    def operand(self) -> Tensor:
        """The tensor that the C++ kernels read.

        Raises:
            TypeError: they cannot read this kind of matrix.
        """

    def matmul(self, x: Tensor) -> Tensor:
        """``x @ self.T``: ``[M, in]`` → ``[M, out]``."""

    def first_columns(self, count: int) -> "Weight":
        """The first columns, as views of the same tensors.

        Raises:
            InvalidRequest: that would cut a group of a quantised matrix.
        """


class RowWeight(Weight, Protocol):
    """A matrix ``[out, in]`` of which rows can be used alone."""

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by their numbers: int64 ``[n]`` → ``[n, in]``."""

    def row_range(self, begin: int, end: int) -> "RowWeight":
        """The rows from ``begin`` to before ``end``, as views of the same tensors."""


class DenseWeight:
    """A matrix of bf16 or fp32.

    Args:
        tensor: ``[out, in]``.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.operand = tensor
        self.dtype, self.device, self.nbytes = tensor.dtype, tensor.device, tensor.nbytes
        self.shape = (tensor.shape[0], tensor.shape[1])

    def matmul(self, x: Tensor) -> Tensor:
        """``x @ self.T``: ``[M, in]`` → ``[M, out]``."""
        return F.linear(x, self.operand)

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by their numbers: int64 ``[n]`` → ``[n, in]``."""
        return F.embedding(ids, self.operand)

    def row_range(self, begin: int, end: int) -> "DenseWeight":
        """The rows from ``begin`` to before ``end``, as views of the same tensors."""
        return DenseWeight(self.operand[begin:end])

    def first_columns(self, count: int) -> "DenseWeight":
        """The first columns, as views of the same tensors."""
        return DenseWeight(self.operand[:, :count])


class QuantizedWeight:
    """A quantised matrix for PyTorch's own operations: parts of it are dequantised when they are used.

    Args:
        tensor: the matrix.
        dtype: of the computation.
    """

    def __init__(self, tensor: QuantizedTensor, dtype: torch.dtype) -> None:
        self._tensor, self.dtype = tensor, dtype
        self.device, self.nbytes, self.shape = tensor.quants.device, tensor.nbytes, tensor.shape

    @property
    def operand(self) -> Tensor:
        """Not available: the C++ kernels read ``PackedWeight``."""
        raise TypeError("the C++ kernels cannot read this matrix")

    def matmul(self, x: Tensor) -> Tensor:
        """``x @ self.T``: ``[M, in]`` → ``[M, out]``."""
        out, width = self.shape
        tile = max(1, TILE_ELEMENTS // width)
        parts = (self._tensor.rows(slice(at, at + tile)) for at in range(0, max(out, 1), tile))
        return torch.cat([F.linear(x, part.dequantize(self.dtype)) for part in parts], dim=-1)

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by their numbers: int64 ``[n]`` → ``[n, in]``."""
        return self._tensor.rows(ids).dequantize(self.dtype)

    def row_range(self, begin: int, end: int) -> "QuantizedWeight":
        """The rows from ``begin`` to before ``end``, as views of the same tensors."""
        return QuantizedWeight(self._tensor.rows(slice(begin, end)), self.dtype)

    def first_columns(self, count: int) -> "QuantizedWeight":
        """The first columns, as views of the same tensors.

        Raises:
            InvalidRequest: that would cut a group.
        """
        return QuantizedWeight(self._tensor.first_columns(count), self.dtype)
