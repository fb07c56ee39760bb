"""Whether a tensor lies in a memory-mapped file."""

from pathlib import Path

from torch import Tensor


def is_mapped(tensor: Tensor, file: Path) -> bool:
    """Whether the first element is in a mapping of the file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, path = line.split(maxsplit=5)
        begin, end = (int(address, 16) for address in span.split("-"))
        if path == str(file.resolve()) and begin <= tensor.data_ptr() < end:
            return True
    return False
