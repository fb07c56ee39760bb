"""A matrix that stays in its memory-mapped file; rows of it are read."""

from collections.abc import Callable

import torch
from torch import Tensor

from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.stored_tensor import StoredTensor

PAGE = 4096
"""Bytes of the smallest page of memory."""
PAGES_PER_READ = 4096
"""Pages that are read between two checks whether to stop."""


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

    def read_into_page_cache(self, stopped: Callable[[], bool]) -> bool:
        """Read the complete file, and map its pages, so that no later row has to wait for the disk.

        Nothing is copied: the pages are those of the file, which the system may drop if it needs memory.

        Args:
            stopped: called between parts of the file; once it returns true, the rest is not read.

        Returns:
            Whether all was read.
        """
        for part in self.parts:
            pages = part.view(torch.uint8).flatten().numpy()[::PAGE]  # reading a byte maps its page
            for start in range(0, len(pages), PAGES_PER_READ):
                if stopped():
                    return False
                pages[start : start + PAGES_PER_READ].max()
        return True
