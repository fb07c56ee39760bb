"""Images: which are accepted, and which are refused before they reach the model."""

import contextlib
import struct
import time
import zlib
from base64 import b64encode
from io import BytesIO

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from packages.gateway.tests.conftest import FakeEngine, assert_error, chat, post
from packages.gateway.tests.message_helpers import data_url, image_part, png, text_part
from PIL import Image

from gemma_gateway.errors import BadRequest
from gemma_gateway.media.loader import read_image
from gemma_gateway.settings import GatewaySettings

PARAM = "messages[0].content[1].image_url.url"
LIMITS = GatewaySettings(max_image_bytes=100_000, max_image_pixels=1_000_000)


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header declares this size, without pixel data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def encoded(kind: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
async def test_formats(client: httpx.AsyncClient, engine: FakeEngine, kind: str) -> None:
    picture = encoded(kind)
    response = await post(client, chat([image_part(data_url(picture, f"image/{kind.lower()}"))]))
    assert response.status_code == 200
    assert engine.asked[0].images == (picture,)


async def test_order_and_repetition(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    one, two = png(1, 1), png(2, 2)
    parts = [image_part(data_url(data)) for data in (one, two, one)]
    assert (await post(client, chat(parts))).status_code == 200
    assert engine.asked[0].images == (one, two, one)


def test_header_variants() -> None:
    text = b64encode(png()).decode()
    for header in (
        "data:image/png;base64",
        "DATA:Image/PNG;charset=utf-8;BASE64",
        "data:image/svg+xml;base64",
        "data:image/png;name=a.png;base64",
        'data:image/png;name="a,b;c.png";base64',
        "data:application/octet-stream;base64",
        "data:;base64",
        " \n data: image/png; charset=utf-8; base64",
    ):
        assert read_image("p", f"{header},{text}", LIMITS) == png()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.org/cat.png", "invalid_image_url"),
        ("HTTP://example.org/cat.png", "invalid_image_url"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("", "invalid_image_url"),
        ("data:image/png", "invalid_image_url"),
        ("data:,hello", "invalid_image_url"),
        ("data:image/png,hello", "invalid_image_url"),
        (b64encode(png()).decode(), "invalid_image_url"),
        (data_url(png(), "text/plain"), "unsupported_image_media_type"),
        (data_url(b""), "empty_image_file"),
        ("data:image/png;base64,a", "invalid_base64_image"),
        ("data:image/png;base64,a*==", "invalid_base64_image"),
        ("data:image/png;base64,aGk", "invalid_image_format"),
        ("data:image/png;base64,aGk=a", "invalid_base64_image"),
        ("data:image/png;base64,%4", "invalid_base64_image"),
        ("data:image/png;base64,aGk=aGk=", "invalid_base64_image"),
        ("data:image/png;base64,äöü=", "invalid_base64_image"),
        (data_url(b"just text, no picture"), "invalid_image_format"),
        (data_url(png()[:20]), "invalid_image_format"),
        (data_url(png_header(50_000, 50_000)), "image_too_large"),
        (data_url(png_header(10_000, 10_000)), "image_too_large"),
        (data_url(png_header(1001, 1000)), "image_too_large"),
        (data_url(bytes(200_001)), "image_file_too_large"),
        (data_url(bytes(1_000_000)), "image_file_too_large"),
    ],
)
async def test_refused(client: httpx.AsyncClient, engine: FakeEngine, url: str, code: str) -> None:
    response = await post(client, chat([text_part("What is this?"), image_part(url)]))
    assert_error(response, 400, PARAM, code)
    assert engine.asked == []
    assert (await post(client, chat())).status_code == 200


async def test_the_decompression_bomb_is_small(client: httpx.AsyncClient) -> None:
    bomb = png_header(50_000, 50_000)
    assert len(bomb) < 2000
    response = await post(client, chat([text_part("x"), image_part(data_url(bomb))]))
    sentence = assert_error(response, 400, PARAM, "image_too_large")
    assert "1000000" in sentence


async def test_too_many(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    part = image_part(data_url(png()))
    response = await post(client, chat([part] * 4))
    sentence = assert_error(response, 400, "messages[0].content[3].image_url.url", "too_many_images")
    assert "3" in sentence
    assert engine.asked == []


async def test_a_truncated_body_passes_the_header_check(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """The model decodes the image completely; for its errors see ``test_errors``."""
    truncated = png(100, 100)[:60]
    assert (await post(client, chat([image_part(data_url(truncated))]))).status_code == 200
    assert engine.asked[0].images == (truncated,)


@given(noise=st.binary(max_size=50_000))
@hypothesis_settings(max_examples=25, deadline=None)
def test_base64_round_trip_beyond_one_slice(noise: bytes) -> None:
    picture = png() + noise * 8
    limits = GatewaySettings(max_image_bytes=10**6)
    assert read_image("p", data_url(picture), limits) == picture


def test_padding_only_at_the_end_of_the_last_slice() -> None:
    first = b64encode(png() + bytes(2**18)).decode()[: 2**18 - 4]
    url = f"data:image/png;base64,{first}AAA=" + "AAAA"
    with pytest.raises(BadRequest, match="not valid base64"):
        read_image("p", url, GatewaySettings())


@given(
    start=st.sampled_from(
        [b"", *(encoded(kind)[:24] for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"))]
    ),
    noise=st.binary(max_size=300),
)
@hypothesis_settings(max_examples=300, deadline=None)
def test_any_bytes_are_an_image_or_a_bad_request(start: bytes, noise: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert read_image("p", data_url(start + noise), LIMITS) == start + noise


@given(url=st.text(max_size=200))
@hypothesis_settings(deadline=None)
def test_hostile_urls_are_a_bad_request(url: str) -> None:
    with pytest.raises(BadRequest):
        read_image("p", f"data:{url}", LIMITS)


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
async def test_the_pixel_limit_applies_to_every_format(client: httpx.AsyncClient, kind: str) -> None:
    buffer = BytesIO()
    Image.new("1", (1001, 1000)).save(buffer, kind, **({"compression": "group4"} if kind == "TIFF" else {}))
    response = await post(client, chat([text_part("x"), image_part(data_url(buffer.getvalue()))]))
    assert "1001x1000" in assert_error(response, 400, PARAM, "image_too_large")


@pytest.mark.parametrize("tags", [1000, 60_000])
def test_a_directory_with_overlapping_values_is_refused_at_once(tags: int) -> None:
    """Pillow reads it while it opens the file: each value of a tag and each strip separately."""
    entries = b"".join(struct.pack("<HHLL", 1000 + i, 7, 90_000, 8) for i in range(tags))
    data = (b"II*\0" + struct.pack("<LH", 8, tags) + entries).ljust(100_000, b"\0")
    with pytest.raises(BadRequest, match="cannot be read"):
        read_image("p", data_url(data), GatewaySettings())


def test_a_million_strips_are_refused_at_once() -> None:
    head = {256: 1, 257: 100, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    rows = [(tag, 1, value) for tag, value in head.items()] + [(273, 10**6, 200), (279, 10**6, 200)]
    entries = b"".join(struct.pack("<HHLL", tag, 4, count, value) for tag, count, value in sorted(rows))
    data = b"II*\0" + struct.pack("<LH", 8, len(rows)) + entries + bytes(4)
    data += struct.pack("<L", 8) * 10**6
    began = time.perf_counter()
    with pytest.raises(BadRequest, match="cannot be read"):
        read_image("p", data_url(data), GatewaySettings())
    assert time.perf_counter() - began < 2  # it took 10 s
