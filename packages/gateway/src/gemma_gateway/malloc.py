"""A setting of the C library's memory allocator for the gateway's process."""

import ctypes
import platform
from typing import Final

M_MMAP_THRESHOLD: Final = -3
"""Its number in ``malloc.h``."""
LARGE: Final = 2**17
"""Bytes; the C library's own initial threshold."""


def return_large_blocks() -> None:
    """Return every freed block of 128 KiB or more to the system at once.

    Bodies with images and audio are such blocks. By default the C library raises the threshold with the
    first large block that is freed, and takes the later ones from the heap, which fragments: the process
    grew by 10 MB with 160 images and clips, three times in a row (docs/log.md).
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
