"""Settings of the C library's memory allocator for the engine's process."""

import ctypes
import os
import platform
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Names and numbers of ``malloc.h``."""
LARGEST_KEPT: Final = 2**27
"""Largest allocation that stays in the heap, in bytes; the logits of 64 rows are half of it."""
KEPT: Final = 2**28
"""Free bytes at the end of the heap before any are returned to the system."""


def tune() -> None:
    """Use large pages for PyTorch's tensors, and keep freed memory in the process.

    The logits of 16 rows have 17 MB. By default the C library maps them again in each step, and the kernel
    clears every page. To be called before the first tensor is created.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # weights are read sequentially
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
