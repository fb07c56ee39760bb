"""Compressed bodies, and bodies with a byte order mark."""

import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, assert_error, chat, gateway

PATH = "/v1/chat/completions"
TEXT = json.dumps(chat("Grüße! " * 500)).encode()
BOMB = json.dumps(chat("a" * 30_000_000)).encode()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


async def post(client: httpx.AsyncClient, data: bytes, encoding: str, piece: int = 2**16) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), piece):
            yield data[start : start + piece]

    headers = {"content-type": "application/json", "content-encoding": encoding}
    return await client.post(PATH, content=pieces(), headers=headers)


@pytest.mark.parametrize("piece", [1, 7, 2**16])
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZip", gzip.compress(TEXT, 1, mtime=0)),
        ("x-gzip", gzip.compress(TEXT, mtime=0)),
        ("identity, gzip", gzip.compress(TEXT, mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", zlib.compress(TEXT, 0)),
        ("deflate", raw_deflate(TEXT)),
        ("identity", TEXT),
        ("", TEXT),
    ],
)
async def test_known_encodings(
    client: httpx.AsyncClient, engine: FakeEngine, encoding: str, data: bytes, piece: int
) -> None:
    response = await post(client, data, encoding, piece)
    assert response.status_code == 200, response.text
    assert engine.asked[0].messages is not None
    assert engine.asked[0].messages[0].content == "Grüße! " * 500


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "nonsense", "gzip;q=1"])
async def test_unknown_encodings(client: httpx.AsyncClient, engine: FakeEngine, encoding: str) -> None:
    response = await post(client, TEXT, encoding)
    assert "gzip or deflate" in assert_error(response, 415, None, "unsupported_content_encoding")
    assert response.headers["accept-encoding"] == "gzip, deflate"
    assert engine.asked == []


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", TEXT),
        ("deflate", TEXT),
        ("gzip", zlib.compress(TEXT)),
        ("deflate", gzip.compress(TEXT, mtime=0)),
        ("gzip", gzip.compress(TEXT, mtime=0)[:-9]),
        ("gzip", gzip.compress(TEXT, mtime=0)[:-8] + b"checksum"),
        ("gzip", gzip.compress(TEXT, mtime=0) + b"more"),
        ("gzip", gzip.compress(TEXT, mtime=0) + gzip.compress(TEXT, mtime=0)),
        ("deflate", zlib.compress(TEXT)[:-1]),
        ("gzip", b""),
        ("deflate", b""),
    ],
)
@pytest.mark.parametrize("piece", [1, 2**16])
async def test_a_wrong_content_encoding_is_refused(
    client: httpx.AsyncClient, engine: FakeEngine, encoding: str, data: bytes, piece: int
) -> None:
    response = await post(client, data, encoding, piece)
    assert_error(response, 400, None, "invalid_compressed_body")
    assert engine.asked == []


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", raw_deflate)])
async def test_a_decompression_bomb_is_refused(engine: FakeEngine, encoding: str, pack: type[bytes]) -> None:
    """It would decompress to 30 MB; it is refused after the first."""
    async with gateway(engine) as client:
        response = await post(client, pack(BOMB), encoding)
    assert "more than 100 times" in assert_error(response, 413, None, "request_too_large")
    assert engine.asked == []


async def test_the_limit_applies_to_the_decompressed_size(engine: FakeEngine) -> None:
    noise = random.Random(0).randbytes(150_000).hex()
    text = json.dumps(chat(noise)).encode()
    async with gateway(engine, max_body_bytes=200_000) as client:
        assert len(gzip.compress(text)) < 200_000
        response = await post(client, gzip.compress(text), "gzip")
        assert "200000 bytes" in assert_error(response, 413, None, "request_too_large")
    async with gateway(engine, max_body_bytes=len(text)) as client:
        assert (await post(client, gzip.compress(text), "gzip")).status_code == 200


@pytest.mark.parametrize("piece", [1, 2**16])
async def test_a_byte_order_mark(client: httpx.AsyncClient, piece: int) -> None:
    mark = b"\xef\xbb\xbf"
    assert (await post(client, mark + TEXT, "", piece)).status_code == 200
    assert (await post(client, gzip.compress(mark + TEXT), "gzip", piece)).status_code == 200
    assert_error(await post(client, mark + mark + TEXT, "", piece), 400, None, "invalid_json")
