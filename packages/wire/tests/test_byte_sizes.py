import pytest
from pydantic import TypeAdapter, ValidationError

from gemma_wire.byte_sizes import MAX_SIZE, ByteSize, parse_size

GIB, MIB = 2**30, 2**20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * GIB),
        ("8G", 8 * GIB),
        ("8Gi", 8 * GIB),
        ("8GB", 8 * 10**9),
        (" 8 gb ", 8 * 10**9),
        ("1.5 GiB", 3 * GIB // 2),
        ("512M", 512 * MIB),
        ("512MB", 512 * 10**6),
        ("8B", 8),
        ("0", 0),
        ("1024", 1024),
        ("268435456", 256 * MIB),
        ("1024TiB", MAX_SIZE),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "8 GiBs",
        "eight",
        "-1",
        "-8G",
        "8,5G",
        "8e9",
        "1e99",
        "inf",
        "nan",
        "GiB",
        "8G8",
        "8iB",
        "٨G",
        "8\nG8",
    ],
)
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; use 8GiB"):
        parse_size(text)


@pytest.mark.parametrize(("text", "hint"), [("8", "use 8GiB or 8MiB"), ("1023", "would be 1023 bytes")])
def test_a_small_number_needs_a_unit(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_size(text)


@pytest.mark.parametrize("text", ["1025TiB", "9" * 500, f"{MAX_SIZE + 1}"])
def test_a_size_has_a_limit(text: str) -> None:
    with pytest.raises(ValueError, match="is more than 1024 TiB"):
        parse_size(text)


def test_a_setting_is_a_number_or_a_text() -> None:
    setting = TypeAdapter(ByteSize)
    assert (setting.validate_python(8), setting.validate_python("2GiB")) == (8, 2 * GIB)
    with pytest.raises(ValidationError, match="8 has no unit"):
        setting.validate_python("8")
