"""Limits of image files: decompression, tiles and tags of a TIFF, EXIF."""

import struct
import zlib

import pytest
from PIL import Image

from gemma_model.media.images import ImageDecoder, PixelBudget
from gemma_wire import InvalidRequest

from ..media_files import encode, mean_colour

SIDE = 64  # what the tiny checkpoint's tower sees


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _with_chunks(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """A PNG with more chunks, before its pixels or behind them."""
    data = encode(Image.new("RGB", (9, 9), "red"))
    at = data.index(b"IEND" if behind else b"IDAT") - 4
    return data[:at] + b"".join(_chunk(*chunk) for chunk in chunks) + data[at:]


ZEROS = zlib.compress(bytes(10_000_000))


MEGABYTE = zlib.compress(bytes(2**20 - 1))


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    "chunks",
    [
        [(b"zTXt", b"Comment\0\0" + ZEROS)],
        [(b"iTXt", b"Comment\0\1\0\0\0" + ZEROS)],
        [(b"zTXt", b"Comment\0\0" + MEGABYTE)] * 65,
        [(b"iCCP", b"profile\0\0" + ZEROS)],
    ],
    ids=["text", "international text", "many texts", "colour profile"],
)
def test_decompression_bombs_are_refused(
    decoder: ImageDecoder, chunks: list[tuple[bytes, bytes]], behind: bool
) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot be decoded: .*(too large|[Tt]oo much memory)"):
        decoder.decode(_with_chunks(*chunks, behind=behind), "images[0]")


@pytest.mark.parametrize("fmt", ["JPEG", "TIFF", "WEBP"])
def test_a_large_colour_profile_is_accepted(decoder: ImageDecoder, fmt: str) -> None:
    data = encode(Image.new("RGB", (40, 30), "red"), fmt, icc_profile=bytes(3_000_000))
    assert mean_colour(decoder, data) == pytest.approx([1, 0, 0], abs=0.02)


def test_a_gif_whose_frame_is_larger_than_its_screen_is_measured_by_the_frame(
    decoder: ImageDecoder,
) -> None:
    data = bytearray(encode(Image.new("P", (9, 9)), "GIF"))
    at = data.index(b",", 13)
    data[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(InvalidRequest, match="60,000 × 60,000 pixels"):
        decoder.decode(bytes(data), "images[0]")


def test_the_images_of_a_request_share_a_pixel_budget(decoder: ImageDecoder) -> None:
    budget, data = PixelBudget(25_000), encode(Image.new("L", (100, 100)))
    decoder.decode(data, "images[0]", budget)
    decoder.decode(data, "images[1]", budget)
    with pytest.raises(InvalidRequest) as caught:
        decoder.decode(data, "images[2]", budget)
    assert caught.value.field == "images[2]"
    says = "brings the images of the request to 30,000 pixels; the limit is 25,000"
    assert caught.value.message == says


def _tiff(tags: dict[int, tuple[int, ...]], strip: bytes) -> bytes:
    """A TIFF file of these tags, all of them LONG, whose only strip or tile is deflated."""
    packed = zlib.compress(strip)
    offset = 8 + 2 + 12 * (len(tags) + 2) + 4
    places = {324: (offset,), 325: (len(packed),)} if 322 in tags else {273: (offset,), 279: (len(packed),)}
    entries = b"".join(
        struct.pack("<HHLL", tag, 4, 1, values[0]) for tag, values in sorted({**tags, **places}.items())
    )
    return b"II*\0" + struct.pack("<LH", 8, len(tags) + 2) + entries + bytes(4) + packed


GREY = {256: (64,), 257: (64,), 258: (8,), 259: (8,), 262: (1,), 277: (1,)}


def test_a_tiff_of_tiles_is_decoded(decoder: ImageDecoder) -> None:
    data = _tiff({**GREY, 322: (64,), 323: (64,)}, b"\xff" * 64 * 64)
    assert mean_colour(decoder, data) == [1, 1, 1]


@pytest.mark.parametrize(("width", "length"), [(30_000, 20_000), (65_520, 32_752), (2**31 - 16, 16)])
def test_a_tile_has_the_same_limit_as_an_image(decoder: ImageDecoder, width: int, length: int) -> None:
    """libtiff would take gigabytes for one tile of a picture of 64 × 64 pixels."""
    data = _tiff({**GREY, 322: (width,), 323: (length,)}, bytes(1000))
    assert len(data) < 200
    with pytest.raises(InvalidRequest, match=r"tiles of .* the limit is"):
        decoder.decode(data, "images[0]")


def test_tiles_count_as_pixels_of_the_request(decoder: ImageDecoder) -> None:
    data = _tiff({**GREY, 322: (1024,), 323: (1024,)}, bytes(1024 * 1024))
    budget = PixelBudget(1024 * 1024 + 100)
    decoder.decode(data, "images[0]", budget)
    with pytest.raises(InvalidRequest, match="of the request"):
        decoder.decode(data, "images[1]", budget)


def test_the_first_page_of_a_tiff_is_used(decoder: ImageDecoder) -> None:
    pages = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "blue")]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert mean_colour(decoder, data) == pytest.approx([1, 0, 0], abs=0.02)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
def test_compressed_tiffs(decoder: ImageDecoder, compression: str) -> None:
    mode = "1" if compression == "group4" else "RGB"
    data = encode(Image.new(mode, (40, 30), "white"), "TIFF", compression=compression)
    assert mean_colour(decoder, data) == pytest.approx([1, 1, 1], abs=0.02)


def exif_bomb() -> bytes:
    """EXIF of 200 KB whose 1,000 tags name 200 MB: each all of it."""
    tags = b"".join(struct.pack("<HHLL", 1000 + i, 7, 180_000, 8) for i in range(1000))
    return (b"II*\0" + struct.pack("<LH", 8, 1000) + tags + bytes(4)).ljust(200_000, b"\0")


def test_exif_that_names_its_bytes_a_thousand_times_is_refused(decoder: ImageDecoder) -> None:
    """In every format that holds EXIF; in a TIFF it is the file's own directory."""
    picture, exif = Image.new("RGB", (64, 64)), exif_bomb()
    whole = encode(picture, "JPEG")
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(piece) + 8) + b"Exif\0\0" + piece
        for piece in (exif[i : i + 60_000] for i in range(0, len(exif), 60_000))
    )
    png = encode(picture, "PNG")
    chunk = b"eXIf" + exif
    framed = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    at = png.index(b"IDAT") - 4
    for data in (
        whole[:2] + segments + whole[20:],  # without JFIF's own segment
        png[:at] + framed + png[at:],
        encode(picture, "WEBP", exif=exif),
        exif,
    ):
        with pytest.raises(InvalidRequest, match="the limit is"):
            decoder.decode(data, "images[0]")
