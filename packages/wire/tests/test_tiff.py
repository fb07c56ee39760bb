import io
import struct

import pytest

from gemma_wire.tiff import MAX_BYTES, MAX_NUMBERS, MAX_TAGS, check_directory


def directory(*tags: tuple[int, int, int], big: bool = False) -> bytes:
    """Tag, type and count of each entry; their values lie at 0."""
    head, entry, last = ("<Q", "<HHQQ", "<Q") if big else ("<H", "<HHLL", "<L")
    entries = b"".join(struct.pack(entry, *tag, 0) for tag in tags)
    return struct.pack(head, len(tags)) + entries + struct.pack(last, 0)


@pytest.mark.parametrize("big", [False, True])
def test_images_are_within_the_limits(big: bool) -> None:
    usual = [(256, 4, 1), (273, 4, MAX_NUMBERS), (34_675, 7, 3 * 2**20), (700, 1, 2**16)]
    file = io.BytesIO(b"before" + directory(*usual, big=big))
    file.seek(6)
    check_directory(file, "<", big)
    assert file.tell() == 6


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("tags", "match"),
    [
        ([(1, 7, 1)] * (MAX_TAGS + 1), "1,025 tags; the limit is 1,024"),
        ([(273, 4, MAX_NUMBERS + 1)], "the tag 273 has 65,537 numbers; the limit is 65,536"),
        ([(tag, 7, MAX_BYTES // 100) for tag in range(101)], "the limit is 4,194,304"),
        ([(700, 7, 2**31)], "the limit is 4,194,304"),
    ],
)
def test_bombs(tags: list[tuple[int, int, int]], match: str, big: bool) -> None:
    with pytest.raises(OSError, match=match):
        check_directory(io.BytesIO(directory(*tags, big=big)), "<", big)


def test_a_truncated_directory_is_not_refused_here() -> None:
    for length in range(14):
        check_directory(io.BytesIO(directory((256, 4, 1))[:length]), "<", False)
