"""Whether a tensor lies in a memory-mapped file, and which of its pages are mapped."""

from pathlib import Path

from torch import Tensor

PAGE, ENTRY = 4096, 8  # bytes of a page, and of its entry in /proc/self/pagemap


def is_mapped(tensor: Tensor, file: Path) -> bool:
    """Whether the first element is in a mapping of the file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, path = line.split(maxsplit=5)
        begin, end = (int(address, 16) for address in span.split("-"))
        if path == str(file.resolve()) and begin <= tensor.data_ptr() < end:
            return True
    return False


def mapped_pages(tensor: Tensor) -> tuple[int, int]:
    """The pages of a tensor: how many are mapped to memory, and how many there are."""
    first, last = tensor.data_ptr() // PAGE, (tensor.data_ptr() + tensor.nbytes - 1) // PAGE
    with Path("/proc/self/pagemap").open("rb") as pages:
        pages.seek(first * ENTRY)
        entries = pages.read((last - first + 1) * ENTRY)
    return sum(bool(flags & 0x80) for flags in entries[ENTRY - 1 :: ENTRY]), last - first + 1
