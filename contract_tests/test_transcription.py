"""Transcription with the demo model: a long recording, in every format, with real clients."""

import base64
import io
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from server import KEY
from stack import ROOT, Stack, running

RATE = 16_000
SOUNDS = {
    "a low tone": lambda t: np.sin(2 * np.pi * 200 * t),
    "a high tone": lambda t: np.sin(2 * np.pi * 2_000 * t),
    "a rising tone": lambda t: np.sin(2 * np.pi * np.cumsum(np.geomspace(200, 2_000, len(t))) / RATE),
    "a falling tone": lambda t: np.sin(2 * np.pi * np.cumsum(np.geomspace(2_000, 200, len(t))) / RATE),
}
ORDER = ["a low tone", "a rising tone", "a high tone", "a falling tone", "a high tone", "a low tone"] * 4
"""Twenty-four sounds, one every five seconds."""
TEXT = " ".join(f"I hear {name}." for name in ORDER)


def recording() -> bytes:
    """Two minutes of tones with pauses between them, as a WAV file."""
    t = np.arange(2 * RATE) / RATE
    envelope = np.minimum(1, 20 * np.minimum(t, 2 - t))
    samples = np.concatenate([np.pad(0.5 * envelope * SOUNDS[name](t), (RATE, 2 * RATE)) for name in ORDER])
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes((samples * 2**15).astype("<i2").tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def hearing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(
        tmp_path_factory.mktemp("hearing") / "log", MODEL_NAME=str(ROOT / "models/gemma3n-nano")
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(hearing: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{hearing.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.timeout(300)
def test_two_minutes_come_out_complete_and_in_order(client: openai.OpenAI) -> None:
    heard = client.audio.transcriptions.create(
        file=("tones.wav", recording()), model="gemma3n", response_format="verbose_json"
    )
    assert heard.text == TEXT
    assert heard.duration == 120
    assert [round(segment.start) for segment in heard.segments or ()] == [1 + 5 * i for i in range(24)]


def test_the_command_writes_subtitles(hearing: Stack, tmp_path: Path) -> None:
    (tmp_path / "tones.wav").write_bytes(recording()[: 44 + 2 * RATE * 15])
    command = [sys.executable, "-m", "gemma_launcher", "transcribe", str(tmp_path / "tones.wav")]
    flags = ["--base-url", hearing.url, "--format", "srt", "--output", str(tmp_path)]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert done.returncode != 0  # the header says two minutes
    assert "is truncated" in done.stderr
    (tmp_path / "tones.wav").write_bytes(recording())
    subprocess.run([*command, *flags], check=True)
    blocks = (tmp_path / "tones.srt").read_text(encoding="utf-8").split("\n\n")
    assert blocks[1] == "2\n00:00:05,700 --> 00:00:08,300\nI hear a rising tone."


def test_a_chat_hears_all_clips_of_two_minutes(hearing: Stack) -> None:
    data = base64.b64encode(recording()).decode()
    sound = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    body: dict[str, Any] = {
        "model": "gemma3n",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What do you hear?"}, sound]}],
    }
    response = httpx.post(f"{hearing.url}/v1/chat/completions", json=body, timeout=100)
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["prompt_tokens"] > 12 * 64  # clips of at most 10 seconds with 64 tokens
