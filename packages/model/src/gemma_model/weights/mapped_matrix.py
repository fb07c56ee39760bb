"""A matrix that stays in its memory-mapped file; rows of it are read."""

from collections.abc import Callable

import torch
from torch import Tensor

from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.stored_tensor import StoredTensor

ROWS_PER_COPY = 1024
"""Rows that are copied between two checks whether to stop."""


class MappedMatrix:
    """A matrix in a file.

    Args:
        stored: the matrix.
    """

    def __init__(self, stored: StoredTensor) -> None:
        self.parts, self._decode = stored.parts(), stored.decode
        self.nbytes = sum(part.nbytes for part in self.parts)
        self.device = torch.device("cpu")

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by their numbers: int64 ``[n]`` → ``[n, in]``; fp32 if they are quantised."""
        decoded = self._decode(*(part[ids] for part in self.parts))
        return decoded.dequantize() if isinstance(decoded, QuantizedTensor) else decoded

    def copy_into_memory(self, stopped: Callable[[], bool]) -> bool:
        """Copy the matrix into memory, so that no row has to be read from the disk.

        Until the copy is complete, rows are read from the file.

        Args:
            stopped: called between parts of the copy; once it returns true, the matrix stays in the file.

        Returns:
            Whether the copy was completed.
        """
        copies = tuple(torch.empty_like(part) for part in self.parts)
        for part, copy in zip(self.parts, copies, strict=True):
            source, target = (each.view(torch.uint8).numpy() for each in (part, copy))  # has no bf16
            for start in range(0, len(source), ROWS_PER_COPY):
                if stopped():
                    return False
                target[start : start + ROWS_PER_COPY] = source[start : start + ROWS_PER_COPY]
        self.parts = copies
        return True
