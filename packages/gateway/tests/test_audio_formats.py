"""Decoding: every format, damaged and hostile files, limits."""

import asyncio
import io
import struct
import wave
from base64 import b64encode
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from packages.gateway.tests.conftest import FakeEngine, asked, assert_error, chat, post

from gemma_gateway.errors import BadRequest
from gemma_gateway.media.audio_format import demuxer, id3_size
from gemma_gateway.media.recording import RATE, Recording, decode_audio

CODECS: dict[str, tuple[str, str, int]] = {
    "wav": ("wav", "pcm_s16le", 44_100),
    "flac": ("flac", "flac", 44_100),
    "mp3": ("mp3", "mp3", 44_100),
    "opus": ("ogg", "libopus", 48_000),
    "m4a": ("ipod", "aac", 44_100),
    "aac": ("adts", "aac", 22_050),
    "webm": ("webm", "libopus", 48_000),
}


def tone(seconds: float, rate: int = RATE, hertz: float = 1000) -> npt.NDArray[np.int16]:
    samples: npt.NDArray[np.int16] = (
        0.4 * 2**15 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    ).astype(np.int16)
    return samples


def encoded(kind: str, seconds: float = 2.0) -> bytes:
    """A stereo file of this kind with a tone of 1,000 Hz."""
    container, codec, rate = CODECS[kind]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=rate, layout="stereo")
        resampler = av.AudioResampler(
            stream.codec_context.format, "stereo", rate, frame_size=stream.codec_context.frame_size or 1024
        )
        frame = av.AudioFrame.from_ndarray(np.repeat(tone(seconds), 2)[None], format="s16", layout="stereo")
        frame.sample_rate = RATE
        for each in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(stream.encode(each))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def wav(samples: npt.NDArray[np.int16], rate: int = RATE, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, 2, rate, 0, "NONE", ""))
        out.writeframes(samples.tobytes())
    return file.getvalue()


async def decode(tmp_path: Path, data: bytes, max_seconds: float = 3600) -> Recording:
    path = tmp_path / "audio"
    path.write_bytes(data)
    with path.open("rb") as file:
        return await decode_audio(file, "file", max_seconds)


async def refusal(tmp_path: Path, data: bytes, max_seconds: float = 3600) -> str:
    with pytest.raises(BadRequest) as caught:
        await decode(tmp_path, data, max_seconds)
    assert caught.value.param == "file"
    return f"{caught.value.code}: {caught.value.message}"


@pytest.mark.parametrize("kind", CODECS)
async def test_every_format(tmp_path: Path, kind: str) -> None:
    samples = (await decode(tmp_path, encoded(kind))).samples.astype(np.float64)
    assert len(samples) / RATE == pytest.approx(2, abs=0.1)
    middle = samples[RATE // 2 : RATE // 2 + RATE]
    assert np.sqrt(np.square(middle).mean()) == pytest.approx(0.4 * 2**15 / np.sqrt(2), rel=0.1)
    assert np.abs(np.fft.rfft(middle)).argmax() == pytest.approx(1000, abs=1)


@pytest.mark.parametrize(("rate", "channels"), [(4_000, 1), (8_000, 2), (192_000, 8)])
async def test_rates_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    samples = np.repeat(tone(1, rate)[:, None], channels, axis=1)
    recording = await decode(tmp_path, wav(samples, rate, channels))
    assert recording.seconds == pytest.approx(1, abs=0.01)
    assert np.abs(np.fft.rfft(recording.samples[:RATE].astype(np.float64))).argmax() == pytest.approx(
        1000, abs=2
    )


async def test_an_id3_tag_before_the_audio(tmp_path: Path) -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)
    assert id3_size(tag) == 266
    for kind in ("mp3", "aac"):
        assert (await decode(tmp_path, tag + encoded(kind))).seconds == pytest.approx(2, abs=0.1)


NOT_AUDIO = "invalid_audio_file: The file 'file' is not audio in a supported format: WAV, FLAC, MP3"
DAMAGED = "invalid_audio_file: The file 'file' is truncated"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x", NOT_AUDIO),
        (bytes(range(256)) * 9, NOT_AUDIO),
        (b"#EXTM3U\nhttp://127.0.0.1/secret", NOT_AUDIO),
        (b"ffconcat version 1.0\nfile /etc/passwd", NOT_AUDIO),
        (b"RIFF\x00\x00\x00\x00AVI LIST" + bytes(100), NOT_AUDIO),
        (wav(tone(1))[:9_000], DAMAGED),
        (encoded("flac")[:9_000], "invalid_audio_file: The file 'file' is damaged: 1 of its 2 packets"),
        (encoded("m4a")[:-400], DAMAGED),
        (encoded("webm")[:50], DAMAGED),
        (b"OggS" + bytes(100), DAMAGED),
        (wav(tone(0.0001)), "audio_too_short: The file 'file' is 0.000 seconds long; at least 0.032"),
        (wav(tone(0)), "audio_too_short"),
        (
            wav(tone(1), 1_000),
            "invalid_audio_file: The file 'file' has 1,000 samples per second; the limits are",
        ),
        (wav(tone(0.9), RATE, 9), "invalid_audio_file: The file 'file' has 9 channels; the limit is 8"),
    ],
    ids=range(14),
)
async def test_refused(tmp_path: Path, data: bytes, message: str) -> None:
    assert (await refusal(tmp_path, data)).startswith(message)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "opus", "webm", "m4a"])
async def test_too_long(tmp_path: Path, kind: str) -> None:
    message = await refusal(tmp_path, encoded(kind, 9), max_seconds=5)
    assert message == "audio_too_long: The file 'file' is longer than the limit of 5 seconds."
    assert (await decode(tmp_path, encoded(kind, 9), max_seconds=9)).seconds == pytest.approx(9, abs=0.1)


async def test_a_video_without_audio(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream: Any = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        out.mux(stream.encode(None))
    assert (await refusal(tmp_path, buffer.getvalue())).endswith("has no audio.")


async def test_a_wav_header_that_lies_about_its_length(tmp_path: Path) -> None:
    data = bytearray(wav(tone(1)))
    struct.pack_into("<I", data, 4, 0xFFFF_FFFF)  # as programs write it that stream
    struct.pack_into("<I", data, 40, 0xFFFF_FFFF)
    assert (await decode(tmp_path, bytes(data))).seconds == 1
    struct.pack_into("<I", data, 4, 10**9)
    assert (await refusal(tmp_path, bytes(data))).startswith(DAMAGED)


async def test_a_little_flac_of_much_silence_stops_at_the_limit(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as out:
        stream: Any = out.add_stream("flac", rate=8_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8_000 * 600), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8_000
        resampler = av.AudioResampler("s16", "mono", 8_000, frame_size=stream.codec_context.frame_size)
        for each in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(stream.encode(each))
        out.mux(stream.encode(None))
    data = bytearray(buffer.getvalue())
    assert len(data) < 150_000
    data[21] &= 0xF0
    data[22:26] = struct.pack(">I", 8_000)  # the header says: one second
    assert (await refusal(tmp_path, bytes(data), max_seconds=60)).startswith("audio_too_long")


async def test_a_decoder_that_dies_is_an_error_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemma_gateway.media.recording.sys.executable", "/bin/false")
    assert "its decoder failed or used too much memory or time" in await refusal(tmp_path, wav(tone(1)))


async def test_the_event_loop_is_free_while_a_file_is_decoded(tmp_path: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await decode(tmp_path, encoded("mp3", 60))
    ticking.cancel()
    assert ticks > 5


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"RIFF\x00\x00\x00\x00WAVE", "wav"),
        (b"\xff\xfb\x90\x00", "mp3"),
        (b"\xff\xf1\x50\x80", "aac"),
        (b"\x00\x00\x00\x20ftypM4A ", "mov"),
        (b"\x1aE\xdf\xa3", "matroska"),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_signatures(head: bytes, name: str | None) -> None:
    assert demuxer(head) == name


@pytest.mark.parametrize("kind", ["m4a", "aac", "webm"])
async def test_chat_converts_what_the_model_cannot_read(
    client: httpx.AsyncClient, engine: FakeEngine, kind: str
) -> None:
    data = b64encode(encoded(kind)).decode()
    request = await asked(
        client, engine, chat([{"type": "input_audio", "input_audio": {"data": data, "format": kind}}])
    )
    with wave.open(io.BytesIO(request.audio[0])) as file:
        assert (file.getframerate(), file.getnchannels()) == (RATE, 1)
        assert file.getnframes() / RATE == pytest.approx(2, abs=0.1)


async def test_chat_refuses_damaged_files_by_name(client: httpx.AsyncClient) -> None:
    data = b64encode(encoded("m4a")[:-400]).decode()
    response = await post(
        client, chat([{"type": "input_audio", "input_audio": {"data": data, "format": "m4a"}}])
    )
    assert_error(response, 400, "messages[0].content[0].input_audio.data", "invalid_audio_file")
