import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from gemma_model.media.images import FORMATS, REDUCING_GAP, ImageDecoder
from gemma_wire import InvalidRequest

from ..media_files import encode, mean_colour

SIDE = 64  # what the tiny checkpoint's tower sees
SMALL, LARGE = (SIDE, SIDE // 2), (5 * REDUCING_GAP * SIDE, 3 * REDUCING_GAP * SIDE + 1)
LOSSLESS = ("PNG", "WEBP", "TIFF")

Pixels = npt.NDArray[np.float32]


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_becomes_pixels(decoder: ImageDecoder, fmt: str) -> None:
    media = decoder.decode(encode(Image.new("RGB", (40, 30), "red"), fmt), "images[0]")
    assert media.features.shape == (3, 64, 64)
    assert media.features.dtype == np.float32
    assert mean_colour(decoder, encode(Image.new("RGB", (40, 30), "red"), fmt)) == pytest.approx(
        [1, 0, 0], abs=0.02
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_every_mode_is_decoded(decoder: ImageDecoder, mode: str) -> None:
    fmt = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    assert mean_colour(decoder, encode(Image.new(mode, (1, 1)), fmt)) is not None


def test_transparency_is_white(decoder: ImageDecoder) -> None:
    assert mean_colour(decoder, encode(Image.new("RGBA", (5, 5), (0, 0, 0, 0)))) == [1, 1, 1]


def test_sixteen_bits_are_scaled_and_not_clipped(decoder: ImageDecoder) -> None:
    deep = Image.fromarray(np.full((8, 8), 128 * 257, dtype=np.uint16))
    assert deep.mode == "I;16"
    assert mean_colour(decoder, encode(deep)) == pytest.approx([0.5, 0.5, 0.5], abs=0.01)


def test_exif_rotation_is_undone(decoder: ImageDecoder) -> None:
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("black", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    features = decoder.decode(encode(picture, "PNG", exif=exif), "images[0]").features
    assert features[:, 0, :].mean() > 0.9
    assert features[:, -1, :].mean() < 0.1


def test_the_digest_is_that_of_the_pixels(decoder: ImageDecoder) -> None:
    red, blue = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    digests = [decoder.decode(data, "x").digest for data in (encode(red), encode(red, "BMP"), encode(blue))]
    assert digests[0] == digests[1] != digests[2]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an image"),
        (b"hello", "not an image"),
        (encode(Image.effect_noise((200, 200), 50))[:900], "cannot be decoded"),
        (encode(Image.effect_noise((200, 200), 50), "JPEG")[:900], "cannot be decoded"),
        (_png_header(50_000, 50_000), "50,000 × 50,000 pixels; the limit is 6,000,000"),
        (
            encode(Image.new("L", (2001, 3000))),
            "is 2,001 × 3,000 pixels; the limit is 6,000,000 pixels",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
    ids=["empty", "text", "cut PNG", "cut JPEG", "bomb", "one row too many", "PostScript"],
)
def test_invalid_images_are_refused_by_name(decoder: ImageDecoder, data: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decoder.decode(data, "images[3]")
    assert caught.value.field == "images[3]"
    assert says in caught.value.message


def _photo(size: tuple[int, int]) -> Image.Image:
    """Soft colours, and shapes with sharp edges."""
    random, (width, height) = np.random.default_rng(3), size
    coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(photo)
    for x, y, radius in random.random((12, 3)):
        r = 0.05 + radius * 0.2
        box = ((x - r) * width, (y - r) * height, (x + r) * width, (y + r) * height)
        draw.ellipse(box, fill=tuple(random.integers(0, 256, 3).tolist()))
    return photo


def _pixels(decoder: ImageDecoder, data: bytes) -> Pixels:
    return decoder.decode(data, "images[0]").features


def _exactly(decoder: ImageDecoder, picture: Image.Image) -> Pixels:
    """What the checkpoint's processor alone makes of a picture."""
    made: Pixels = decoder._processor(images=picture.convert("RGB"), return_tensors="np")["pixel_values"][0]
    return made


@pytest.mark.parametrize("fmt", LOSSLESS)
@pytest.mark.parametrize("size", [(1, 1), (SIDE, SIDE), (200, 31), (2 * REDUCING_GAP * SIDE - 1,) * 2])
def test_a_small_image_is_resized_exactly(decoder: ImageDecoder, fmt: str, size: tuple[int, int]) -> None:
    photo = _photo(size)
    lossless = {"lossless": True} if fmt == "WEBP" else {}
    assert np.array_equal(_pixels(decoder, encode(photo, fmt, **lossless)), _exactly(decoder, photo))


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("size", [(613, 402), (257, 256), (1500, 70), (9, 1101)])
def test_a_large_image_is_reduced_first_with_a_similar_result(
    decoder: ImageDecoder, fmt: str, size: tuple[int, int]
) -> None:
    data = encode(_photo(size), fmt)
    assert decoder._shrink(Image.open(io.BytesIO(data))).size == (SIDE, SIDE)
    difference = np.abs(_pixels(decoder, data) - _exactly(decoder, Image.open(io.BytesIO(data))))
    assert difference.mean() < 0.01
    assert np.quantile(difference, 0.99) < 0.1


@pytest.mark.parametrize("fmt", ["JPEG", "BMP"])
def test_an_image_from_a_camera_is_decoded(decoder: ImageDecoder, fmt: str) -> None:
    data = encode(Image.new("RGB", (3000, 2000), "red"), fmt)
    assert mean_colour(decoder, data) == pytest.approx([1, 0, 0], abs=0.02)


def test_a_jpeg_is_decoded_at_a_fraction_of_its_size(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, load, loaded = (
        encode(_photo((2400, 2000)), "JPEG"),
        Image.Image.load,
        list[tuple[int, int]](),
    )

    def noting(picture: Image.Image) -> Any:
        loaded.append(picture.size)
        return load(picture)

    monkeypatch.setattr(Image.Image, "load", noting)
    _pixels(decoder, data)
    assert max(loaded) == (300, 250)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_looks_the_same_in_any_size(
    decoder: ImageDecoder, mode: str, size: tuple[int, int]
) -> None:
    grey = Image.new("L", size, "black")
    grey.paste("white", (size[0] // 2, 0, *size))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    made = {"I;16": deep, "I": deep.convert("I"), "F": grey.convert("F")}
    picture = made.get(mode) or grey.convert("RGB").convert(mode)
    # Pillow 12, which Gradio asks for, writes a YCbCr TIFF that it cannot read again.
    fmt = {"LA": "PNG", "P": "PNG", "RGBA": "PNG", "YCbCr": "JPEG"}.get(mode, "TIFF")
    pixels = _pixels(decoder, encode(picture, fmt))
    assert pixels[:, :, :28] == pytest.approx(0, abs=0.02)
    assert pixels[:, :, -28:] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_transparency_is_white_without_dark_edges(decoder: ImageDecoder, size: tuple[int, int]) -> None:
    hole = Image.new("RGBA", size, (0, 0, 0, 0))
    hole.paste((255, 255, 255, 255), (0, 0, size[0] // 3, size[1]))
    assert _pixels(decoder, encode(hole)) == pytest.approx(1, abs=0.01)
    assert _pixels(decoder, encode(Image.new("LA", size, (0, 128)))) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("fmt", ["PNG", "GIF"])
def test_a_palettes_transparent_colour_is_white(
    decoder: ImageDecoder, fmt: str, size: tuple[int, int]
) -> None:
    picture = Image.new("P", size, 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(1, (0, 0, size[0] // 2, size[1]))
    pixels = _pixels(decoder, encode(picture, fmt, transparency=0))
    assert pixels[:, :, -28:] == pytest.approx(1, abs=0.02)
    assert pixels[2, :, :28] == pytest.approx(1, abs=0.02)
    assert pixels[:2, :, :28] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_is_white(decoder: ImageDecoder, mode: str, size: tuple[int, int]) -> None:
    data = encode(Image.new(mode, size, "black"), transparency=0 if mode == "L" else (0, 0, 0))
    assert _pixels(decoder, data) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("orientation", "edge"), [(1, "top"), (3, "bottom"), (6, "right"), (8, "left")])
def test_every_format_is_rotated_by_its_exif_orientation(
    decoder: ImageDecoder, fmt: str, size: tuple[int, int], orientation: int, edge: str
) -> None:
    picture = Image.new("RGB", size, "white")
    picture.paste("black", (0, 0, size[0], size[1] // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = _pixels(decoder, encode(picture, fmt, exif=exif))
    edges = {"top": pixels[:, 0], "bottom": pixels[:, -1], "left": pixels[:, :, 0], "right": pixels[:, :, -1]}
    assert min(edges, key=lambda name: edges[name].mean()) == edge
    assert edges[edge] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_used(decoder: ImageDecoder, fmt: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "lime")]
    data = encode(frames[0], fmt, save_all=True, append_images=frames[1:])
    Image.open(io.BytesIO(data)).seek(2)  # it has three
    assert mean_colour(decoder, data) == pytest.approx([1, 0, 0], abs=0.02)
