"""Audio: base64, data URLs and limits; the model parses the files."""

from base64 import b64encode

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, asked, assert_error, chat, post
from packages.gateway.tests.hostile_server import hostile
from packages.gateway.tests.message_helpers import png

from gemma_gateway.errors import BadRequest
from gemma_gateway.media.loader import read_audio
from gemma_gateway.settings import GatewaySettings
from gemma_wire import AudioPart

WAVE = b"RIFF" + bytes(range(256)) * 4
TEXT = b64encode(WAVE).decode()
LIMITS = GatewaySettings(max_audio=2, max_audio_bytes=2000)
PARAM = "messages[0].content[1].input_audio.data"


async def test_audio_files_keep_their_order() -> None:
    other = b64encode(b"ID3").decode()
    assert await read_audio([("a", TEXT), ("b", f"data:audio/mpeg;base64,{other}")], LIMITS) == (WAVE, b"ID3")
    assert await read_audio([], LIMITS) == ()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_audio_file"),
        ("a*==", "invalid_base64_audio"),
        ("https://example.org/a.wav", "invalid_audio_url"),
        ("data:audio/wav,abc", "invalid_audio_url"),
        (f"data:image/png;base64,{TEXT}", "unsupported_audio_media_type"),
        (b64encode(bytes(2001)).decode(), "audio_file_too_large"),
        ("A" * 10_000_000, "audio_file_too_large"),
    ],
)
async def test_refused(text: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await read_audio([("first", TEXT), (PARAM, text)], LIMITS)
    assert (caught.value.param, caught.value.code) == (PARAM, code)


async def test_too_many() -> None:
    with pytest.raises(BadRequest, match="2") as caught:
        await read_audio([("a", TEXT), ("b", TEXT), ("c", TEXT)], LIMITS)
    assert (caught.value.param, caught.value.code) == ("c", "too_many_audio_files")


async def test_audio_urls_are_fetched_like_image_urls() -> None:
    settings = GatewaySettings(media_domains="*")
    async with hostile() as net:
        places = [("a", "http://a.example/cat.png"), ("b", TEXT), ("c", "http://a.example/cat.png")]
        first, second, third = await read_audio(places, settings, net.fetcher())
        assert (first, second, third) == (png(), WAVE, png())
        assert len(net.dialled) == 1


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1/a.wav", "invalid_audio_url"),
        ("http://b.example/gone", "audio_file_not_found"),
        ("http://b.example/empty", "empty_audio_file"),
        ("ftp://b.example/a.wav", "invalid_base64_audio"),
    ],
)
async def test_audio_urls_that_are_not_fetched(url: str, code: str) -> None:
    async with hostile() as net:
        with pytest.raises(BadRequest) as caught:
            await read_audio([("a", TEXT), (PARAM, url)], GatewaySettings(media_domains="*"), net.fetcher())
    assert (caught.value.param, caught.value.code) == (PARAM, code)
    assert "image" not in caught.value.message


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "ogg", "opus", "m4a", "webm", "pcm16", None])
async def test_the_format_is_detected_from_the_content(
    client: httpx.AsyncClient, engine: FakeEngine, kind: str | None
) -> None:
    part = {"type": "input_audio", "input_audio": {"data": TEXT, "format": kind}}
    assert (await asked(client, engine, chat([part]))).audio == (WAVE,)


@pytest.mark.parametrize("url", [f"data:audio/x-wav;base64,{TEXT}", {"url": f"data:audio/ogg;base64,{TEXT}"}])
async def test_audio_url(client: httpx.AsyncClient, engine: FakeEngine, url: object) -> None:
    request = await asked(client, engine, chat([{"type": "audio_url", "audio_url": url}]))
    assert request.audio == (WAVE,)
    assert request.messages is not None
    assert request.messages[0].content == (AudioPart(),)


async def test_an_error_names_the_audio_url(client: httpx.AsyncClient) -> None:
    part = {"type": "audio_url", "audio_url": {"url": "https://example.org/a.wav"}}
    response = await post(client, chat([part]))
    assert_error(response, 400, "messages[0].content[0].audio_url.url", "invalid_audio_url")
