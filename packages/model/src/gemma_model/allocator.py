"""The memory of the process that runs the engine."""

import ctypes
import os
import platform
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Names and numbers of ``malloc.h``."""
LARGEST_KEPT: Final = 2**27
"""Bytes of one allocation; the logits of 64 rows are half of it."""
KEPT: Final = 2**28
"""Bytes that are free at the end of the heap before any of them go back to the system."""


def tune() -> None:
    """Large pages for PyTorch's tensors, and memory that is free again stays with the process.

    The logits of 16 rows are 17 MB. By default the C library maps them anew for each step and gives them back
    after it, and the kernel clears every page in between. To be called before the first tensor is made.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # weights are read from end to end
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
