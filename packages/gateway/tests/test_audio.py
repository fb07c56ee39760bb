"""Sounds: base64, within the limits; what is in them is the model's."""

from base64 import b64encode

import pytest

from gemma_gateway.errors import BadRequest
from gemma_gateway.media import read_audio
from gemma_gateway.settings import Settings

WAVE = b"RIFF" + bytes(range(256)) * 4
TEXT = b64encode(WAVE).decode()
LIMITS = Settings(max_audio=2, max_audio_bytes=2000)
PARAM = "messages[0].content[1].input_audio.data"


async def test_sounds_in_order() -> None:
    other = b64encode(b"ID3").decode()
    assert await read_audio([("a", TEXT), ("b", f"data:audio/mpeg;base64,{other}")], LIMITS) == (WAVE, b"ID3")
    assert await read_audio([], LIMITS) == ()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_audio_file"),
        ("a*==", "invalid_base64_audio"),
        ("https://example.org/a.wav", "invalid_base64_audio"),
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
