"""Helpers for tests of transcription: recordings of tones, and an engine that says how long they are."""

import io
import json
import wave
from typing import Any

import httpx
import numpy as np
from packages.gateway.tests.conftest import INFO, FakeEngine

from gemma_wire import Chunk, Request, TokenLogprob, Usage

HEARING = INFO.model_copy(
    update={"modalities": ("text", "audio"), "audio_seconds": 30.0, "audio_tokens": 188}
)
RATE = 16_000


def sound(*parts: float, rate: int = RATE) -> bytes:
    """A WAV file: seconds of a tone, seconds of silence, and so on."""
    pieces = [
        np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate) * (0.3 if number % 2 == 0 else 0)
        for number, seconds in enumerate(parts)
    ]
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes((np.concatenate(pieces) * 2**15).astype("<i2").tobytes())
    return file.getvalue()


def heard_seconds(request: Request) -> float:
    with wave.open(io.BytesIO(request.audio[0])) as file:
        return float(file.getnframes() / RATE)


THREE = sound(2, 1.5, 3, 1.5, 4)
"""Three tones of 2, 3 and 4 seconds."""


def say_length(request: Request) -> list[Any]:
    """The length of the piece, in two chunks and with spaces around it."""
    logprob = TokenLogprob(token_id=5, token=" a", utf8=(32, 97), logprob=-0.5)
    usage = Usage(prompt_tokens=200, completion_tokens=3)
    return [
        Chunk(text=" about ", token_ids=(4,)),
        Chunk(text=f"{round(heard_seconds(request))} s ", token_ids=(5,), logprobs=(logprob,)),
        Chunk(finish_reason="stop", usage=usage),
    ]


def hearing_engine() -> FakeEngine:
    """An engine that says the length of each piece."""
    made = FakeEngine()
    made.info = HEARING
    made.answer = say_length
    return made


async def ask(
    client: httpx.AsyncClient, data: bytes = THREE, /, path: str = "transcriptions", **fields: Any
) -> httpx.Response:
    form = {"model": "gemma3n", **fields}
    return await client.post(f"/v1/audio/{path}", data=form, files={"file": ("a.wav", data)})


TEXT = "about 2 s about 4 s about 4 s"


def parse_events(response: httpx.Response) -> list[Any]:
    """The events of a stream, which has no other end."""
    blocks = response.text.removesuffix("\n\n").split("\n\n")
    return [json.loads(block.removeprefix("data: ")) for block in blocks]
