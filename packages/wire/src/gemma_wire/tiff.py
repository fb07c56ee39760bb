"""Limits on TIFF directories, which contain the tags of TIFF files and the EXIF data of other images.

The values of tags may overlap, so a directory of some kilobytes can refer to gigabytes, and each value is
read separately. Pillow reads a directory while it opens an image. So the gateway and the model make Pillow
call ``check_directory`` first.
"""

import struct
from typing import IO, Final

MAX_TAGS: Final = 1024
MAX_NUMBERS: Final = 65_536
"""Numbers of one tag, which is also the maximum number of strips and tiles."""
MAX_BYTES: Final = 4 * 2**20
"""Of all values of a directory together; a colour profile has up to 3 MiB."""
_UNIT: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
"""Bytes of one number, by the type of a tag."""
_OPAQUE: Final = (1, 2, 7)
"""Types whose values stay bytes."""


def check_directory(file: IO[bytes], endian: str, big: bool) -> None:
    """Checks the directory at the file's position, to which it returns.

    Args:
        file: of the image, or of its EXIF.
        endian: ``<`` or ``>``.
        big: whether it is a BigTIFF.

    Raises:
        OSError: it exceeds a limit.
    """
    start = file.tell()
    head, entry = ("Q", "HHQ8x") if big else ("H", "HHL4x")
    count = _unpack(file, endian + head)
    (tags,) = count or (0,)
    if tags > MAX_TAGS:
        raise OSError(f"a directory has {tags:,} tags; the limit is {MAX_TAGS:,}")
    total = 0
    for _ in range(tags):
        tag, kind, numbers = _unpack(file, endian + entry) or (0, 0, 0)
        if kind not in _OPAQUE and numbers > MAX_NUMBERS:
            raise OSError(f"the tag {tag} has {numbers:,} numbers; the limit is {MAX_NUMBERS:,}")
        total += numbers * _UNIT.get(kind, 0)
    if total > MAX_BYTES:
        raise OSError(f"the tags of a directory have {total:,} bytes; the limit is {MAX_BYTES:,}")
    file.seek(start)


def _unpack(file: IO[bytes], layout: str) -> tuple[int, ...] | None:
    """The next numbers; ``None`` at the end of the file."""
    size = struct.calcsize(layout)
    data = file.read(size)
    return struct.unpack(layout, data) if len(data) == size else None
