import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemma_model.media.images import FORMATS, ImageDecoder
from gemma_wire import InvalidRequest

MAX_PIXELS = 1_000_000


@pytest.fixture(scope="module")
def decoder(tiny: Path) -> ImageDecoder:
    return ImageDecoder(tiny, MAX_PIXELS)


def _encode(picture: Image.Image, fmt: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, fmt, **options)
    return buffer.getvalue()


def _colour(decoder: ImageDecoder, data: bytes) -> list[float]:
    features = decoder.decode(data, "images[0]").features
    return [round(float(channel.mean()), 2) for channel in features]


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_becomes_pixels(decoder: ImageDecoder, fmt: str) -> None:
    media = decoder.decode(_encode(Image.new("RGB", (40, 30), "red"), fmt), "images[0]")
    assert media.features.shape == (3, 64, 64)
    assert media.features.dtype == np.float32
    assert _colour(decoder, _encode(Image.new("RGB", (40, 30), "red"), fmt)) == pytest.approx(
        [1, 0, 0], abs=0.02
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_every_mode_is_decoded(decoder: ImageDecoder, mode: str) -> None:
    fmt = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    assert _colour(decoder, _encode(Image.new(mode, (1, 1)), fmt)) is not None


def test_transparency_is_white(decoder: ImageDecoder) -> None:
    assert _colour(decoder, _encode(Image.new("RGBA", (5, 5), (0, 0, 0, 0)))) == [1, 1, 1]


def test_sixteen_bits_are_scaled_and_not_clipped(decoder: ImageDecoder) -> None:
    deep = Image.fromarray(np.full((8, 8), 128 * 257, dtype=np.uint16))
    assert deep.mode == "I;16"
    assert _colour(decoder, _encode(deep)) == pytest.approx([0.5, 0.5, 0.5], abs=0.01)


def test_exif_rotation_is_undone(decoder: ImageDecoder) -> None:
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("black", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    features = decoder.decode(_encode(picture, "PNG", exif=exif), "images[0]").features
    assert features[:, 0, :].mean() > 0.9
    assert features[:, -1, :].mean() < 0.1


def test_the_digest_is_of_what_the_tower_sees(decoder: ImageDecoder) -> None:
    red, blue = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    digests = [
        decoder.decode(data, "x").digest for data in (_encode(red), _encode(red, "BMP"), _encode(blue))
    ]
    assert digests[0] == digests[1] != digests[2]


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a picture"),
        (b"hello", "not a picture"),
        (_encode(Image.effect_noise((200, 200), 50))[:900], "cannot be decoded"),
        (_encode(Image.effect_noise((200, 200), 50), "JPEG")[:900], "cannot be decoded"),
        (_png_header(50_000, 50_000), "50,000 × 50,000 pixels; 1,000,000"),
        (_encode(Image.new("L", (1001, 1000))), "pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
    ids=["empty", "text", "cut PNG", "cut JPEG", "bomb", "one row too many", "PostScript"],
)
def test_what_is_no_picture_is_refused_by_name(decoder: ImageDecoder, data: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decoder.decode(data, "images[3]")
    assert caught.value.field == "images[3]"
    assert says in caught.value.message
