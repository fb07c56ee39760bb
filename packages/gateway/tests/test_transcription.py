"""``/v1/audio/transcriptions`` and ``/translations``: forms, formats and streams."""

import asyncio
import contextlib
import gc
import io
import json
import tempfile
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import psutil
import pytest
from packages.gateway.tests.conftest import INFO, FakeEngine, Pause, assert_error, gateway, serve, until
from packages.gateway.tests.openai_document import assert_valid

from gemma_gateway.app import create_app
from gemma_gateway.settings import GatewaySettings
from gemma_wire import Chunk, EngineFailure, Overloaded, Request, TokenLogprob, Usage

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


@pytest.fixture
def engine() -> FakeEngine:
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


async def test_json(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    response = await ask(client)
    assert response.status_code == 200, response.text
    assert_valid(response.json(), "CreateTranscriptionResponseJson")
    assert response.json() == {
        "text": TEXT,
        "usage": {
            "type": "tokens",
            "input_tokens": 600,
            "input_token_details": {"text_tokens": 36, "audio_tokens": 564},
            "output_tokens": 9,
            "total_tokens": 609,
        },
    }
    assert response.headers["x-audio-seconds"] == "12.000"
    request = engine.asked[0]
    assert request.temperature == 0
    assert request.messages is not None
    assert request.messages[0].parts[0].text == "Transcribe the speech in this audio."  # type: ignore[union-attr]


async def test_verbose_json_has_a_segment_for_each_piece(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    response = await ask(client, response_format="verbose_json", language="de")
    body = response.json()
    assert_valid(body, "CreateTranscriptionResponseVerboseJson")
    assert (body["task"], body["language"], body["duration"], body["text"]) == (
        "transcribe",
        "german",
        12,
        TEXT,
    )
    times = [(each["start"], each["end"]) for each in body["segments"]]
    assert times == pytest.approx([(0, 2.3), (3.2, 6.8), (7.7, 12)], abs=0.03)
    assert body["segments"][1] | {"start": 0, "end": 0} == {
        "id": 1,
        "seek": round(100 * times[1][0]),
        "start": 0,
        "end": 0,
        "text": "about 4 s",
        "tokens": [4, 5],
        "temperature": 0,
        "avg_logprob": -0.5,
        "compression_ratio": pytest.approx(9 / 17),
        "no_speech_prob": 0,
    }
    assert engine.asked[0].messages[0].parts[0].text == "Transcribe the German speech in this audio."  # type: ignore[index,union-attr]


async def test_text_and_subtitles(client: httpx.AsyncClient) -> None:
    assert (await ask(client, response_format="text")).text == TEXT
    srt = await ask(client, response_format="srt")
    assert srt.text.startswith("1\n00:00:00,000 --> 00:00:02,300\nabout 2 s\n\n2\n00:00:03,200 --> ")
    vtt = await ask(client, response_format="vtt")
    assert vtt.text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.300\nabout 2 s\n\n00:00:03.200 --> ")
    assert vtt.headers["content-type"].startswith("text/vtt")


async def test_translation(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    response = await ask(client, path="translations", response_format="verbose_json", prompt="A meeting.")
    assert_valid(response.json(), "CreateTranslationResponseVerboseJson")
    assert response.json()["language"] == "english"
    (part, _) = engine.asked[0].messages[0].parts  # type: ignore[index]
    assert part.text == "Translate the speech in this audio into English.\nContext: A meeting."  # type: ignore[union-attr]
    assert_valid((await ask(client, path="translations")).json(), "CreateTranslationResponseJson")


async def test_a_stream_has_deltas_and_the_complete_text(client: httpx.AsyncClient) -> None:
    response = await ask(client, stream="true", **{"include[]": "logprobs"})
    assert response.headers["content-type"].startswith("text/event-stream")
    sent = parse_events(response)
    for event in sent:
        assert_valid(event, "CreateTranscriptionResponseStreamEvent")
    deltas = [event["delta"] for event in sent[:-1]]
    assert "".join(deltas) == sent[-1]["text"] == TEXT
    assert deltas[:2] == ["about", " 2 s"]
    assert sent[1]["logprobs"] == [{"token": " a", "logprob": -0.5, "bytes": [32, 97]}]
    assert len(sent[-1]["logprobs"]) == 3
    assert sent[-1]["usage"]["total_tokens"] == 609


async def test_a_stream_of_subtitles_has_finished_segments_and_the_file(client: httpx.AsyncClient) -> None:
    response = await ask(client, stream="true", response_format="srt")
    *segments, done = parse_events(response)
    for event in (*segments, done):
        assert_valid(event, "CreateTranscriptionResponseStreamEvent")
    assert [each["text"] for each in segments] == ["about 2 s", "about 4 s", "about 4 s"]
    assert done["text"] == (await ask(client, response_format="srt")).text
    assert response.headers["x-audio-seconds"] == "12.000"


def parse_events(response: httpx.Response) -> list[Any]:
    """The events of a stream, which has no other end."""
    blocks = response.text.removesuffix("\n\n").split("\n\n")
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


async def test_silence_gives_no_text_and_no_call(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    silent = sound(0, 20)
    response = await ask(client, silent, response_format="verbose_json")
    assert (response.json()["text"], response.json()["segments"]) == ("", [])
    assert (await ask(client, silent, response_format="srt")).text == ""
    assert [each["type"] for each in parse_events(await ask(client, silent, stream="true"))] == [
        "transcript.text.done"
    ]
    assert engine.asked == []


async def test_pieces_run_concurrently_and_are_joined_in_order(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    last = asyncio.Event()

    def answer(request: Request) -> list[Any]:
        seconds = round(heard_seconds(request))
        wait = last if seconds == 2 else Pause(0.01)
        if seconds == 5:
            last.set()
        end = Chunk(finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=1))
        return [wait, Chunk(text=f"{seconds}"), end]

    engine.answer = answer
    response = await ask(client, sound(2, 1.5, 3, 1.5, 5))
    assert response.json()["text"] == "2 4 5"


async def test_a_full_queue_is_waited_for_once_a_piece_was_accepted(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemma_gateway.transcription.pieces.BUSY_SECONDS", 0.01)
    refused: list[Request] = []

    def answer(request: Request) -> list[Any]:
        if round(heard_seconds(request)) == 4 and len(refused) < 3:
            refused.append(request)
            return [Pause(0.05), Overloaded("full")]
        return say_length(request)

    engine.answer = answer
    assert (await ask(client)).json()["text"] == TEXT
    assert len(refused) == 3
    engine.answer = lambda request: [Overloaded("full")]
    assert_error(await ask(client), 429, None, "rate_limit_exceeded")


async def test_an_error_of_one_piece_ends_all(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    def answer(request: Request) -> list[Any]:
        if round(heard_seconds(request)) == 2:
            return [EngineFailure("broken")]
        return [asyncio.Event()]

    engine.answer = answer
    assert_error(await ask(client), 500, None, "internal_error")
    assert engine.running == 0


REFUSED_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "whisper-1"}, "model", "model_not_found"),
    ({"model": ""}, "model", "missing_required_parameter"),
    ({"language": "klingon"}, "language", "invalid_value"),
    ({"response_format": "diarized_json"}, "response_format", "invalid_value"),
    ({"temperature": "1.5"}, "temperature", "decimal_above_max_value"),
    ({"temperature": "warm"}, "temperature", "invalid_type"),
    ({"temperature": "NaN"}, "temperature", "invalid_type"),
    ({"timestamp_granularities[]": "word"}, "timestamp_granularities[0]", "unsupported_value"),
    ({"include[]": "speakers"}, "include[0]", "invalid_value"),
    ({"include[]": "logprobs", "response_format": "srt"}, "include", "invalid_parameter_combination"),
    ({"chunking_strategy": "manual"}, "chunking_strategy", "invalid_value"),
    ({"chunking_strategy[type]": "vad"}, "chunking_strategy.type", "invalid_value"),
    ({"known_speaker_names[]": "Ann"}, "known_speaker_names", "unsupported_parameter"),
    ({"frobnicate": "1"}, "frobnicate", "unknown_parameter"),
    ({"file": "abc"}, "file", "invalid_value"),
]


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED_FIELDS)
async def test_refused_fields(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, Any], param: str, code: str
) -> None:
    assert_error(
        await ask(client, **fields), 404 if param == "model" and fields["model"] else 400, param, code
    )
    assert engine.asked == []


@pytest.mark.parametrize(
    "fields",
    [
        {"language": ""},
        {"language": "en-US"},
        {"language": "English"},
        {"stream": "false"},
        {"include[]": ""},
        {"known_speaker_names": "[]"},
        {"timestamp_granularities[]": "segment", "response_format": "verbose_json"},
        {"timestamp_granularities": '["segment"]'},
        {"chunking_strategy": "auto"},
        {"chunking_strategy": "null"},
        {"frobnicate": "null"},
    ],
)
async def test_accepted_fields(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    response = await ask(client, **fields)
    assert response.status_code == 200, response.text
    assert response.json()["text"] == TEXT


async def test_server_vad_decides_where_audio_is_cut(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    vad: dict[str, Any] = {
        "chunking_strategy[type]": "server_vad",
        "chunking_strategy[silence_duration_ms]": "2000",
    }
    assert (await ask(client, **vad)).json()["text"] == "about 12 s"
    whole = '{"type": "server_vad", "prefix_padding_ms": 0}'
    assert (await ask(client, chunking_strategy=whole)).json()["text"] == "about 2 s about 3 s about 4 s"


async def test_a_model_that_does_not_hear(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.info = INFO
    assert_error(await ask(client), 400, "model", "unsupported_modality")


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", b"{}", "unsupported_content_type"),
        ("multipart/form-data", b"", "invalid_form"),
        ("multipart/form-data; boundary=x", b"nonsense", "invalid_form"),
        ("multipart/form-data; boundary=x", b"", "missing_required_parameter"),
    ],
)
async def test_bodies_that_are_no_form(
    client: httpx.AsyncClient, content_type: str, body: bytes, code: str
) -> None:
    response = await client.post(
        "/v1/audio/transcriptions", content=body, headers={"content-type": content_type}
    )
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code


async def test_limits_of_a_form(client: httpx.AsyncClient) -> None:
    assert_error(await ask(client, prompt="x" * 2**17), 400, None, "invalid_form")
    files = [("file", ("a.wav", THREE)), ("file", ("b.wav", THREE))]
    response = await client.post("/v1/audio/transcriptions", data={"model": "gemma3n"}, files=files)
    assert_error(response, 400, None, "invalid_form")


async def test_a_large_upload(engine: FakeEngine) -> None:
    async with gateway(engine, max_body_bytes=1000, max_audio_upload_bytes=500_000) as client:
        assert (await ask(client)).status_code == 200  # 384,044 bytes
        assert_error(await ask(client, bytes(600_000)), 413, None, "request_too_large")
        body = {"model": "gemma3n", "messages": [{"role": "user", "content": "x" * 2000}]}
        assert_error(await client.post("/v1/chat/completions", json=body), 413, None, "request_too_large")


@pytest.fixture
async def sdk(engine: FakeEngine) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client of a gateway on a real port."""
    async with (
        serve(create_app(GatewaySettings(), engine)) as (_, url),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


async def test_the_sdk(sdk: openai.AsyncOpenAI) -> None:
    create = sdk.audio.transcriptions.create
    file = ("a.wav", THREE)
    assert (await create(file=file, model="gemma3n")).text == TEXT
    assert (await create(file=file, model="gemma3n", response_format="text")) == TEXT
    assert "-->" in await create(file=file, model="gemma3n", response_format="srt")
    assert "WEBVTT" in await create(file=file, model="gemma3n", response_format="vtt")
    verbose = await create(
        file=file, model="gemma3n", response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert [segment.text for segment in verbose.segments or ()] == ["about 2 s", "about 4 s", "about 4 s"]
    strategy: Any = {"type": "server_vad", "silence_duration_ms": 2000, "threshold": 0.5}
    heard = await create(file=file, model="gemma3n", chunking_strategy=strategy, include=["logprobs"])
    assert (heard.text, len(heard.logprobs or ())) == ("about 12 s", 1)
    text, last = "", None
    async for event in await create(file=file, model="gemma3n", stream=True):
        text += event.delta if event.type == "transcript.text.delta" else ""
        last = event
    assert text == TEXT
    assert last is not None
    assert last.type == "transcript.text.done"
    with pytest.warns(DeprecationWarning, match="deprecated"):
        assert (await sdk.audio.translations.create(file=file, model="gemma3n")).text == TEXT
    with pytest.raises(openai.BadRequestError, match="word") as caught:
        await create(
            file=file, model="gemma3n", response_format="verbose_json", timestamp_granularities=["word"]
        )
    assert caught.value.param == "timestamp_granularities[0]"


def deleted_files() -> set[str]:
    """Open files of this process without a name, and what is mapped from them."""
    gc.collect()
    names = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(str(fd.readlink()))
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return {
        name.split("/", 1)[-1]
        for name in (*names, *maps)
        if "(deleted)" in name and tempfile.gettempdir() in name
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_request_leaves_nothing(
    sdk: openai.AsyncOpenAI, engine: FakeEngine, stream: bool
) -> None:
    before = deleted_files()
    engine.answer = lambda request: [Chunk(text="a"), asyncio.Event()]
    create = sdk.audio.transcriptions.create
    asked: Any = create(file=("a.wav", THREE), model="gemma3n", stream=stream)
    task = asyncio.create_task(asked)
    await until(lambda: engine.running == 3)
    if stream:
        await (await task).close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: engine.running == 0)
    assert deleted_files() <= before


async def test_a_refused_file_leaves_nothing(sdk: openai.AsyncOpenAI) -> None:
    before = deleted_files()
    with pytest.raises(openai.BadRequestError):
        await sdk.audio.transcriptions.create(file=("a.wav", bytes(3_000_000)), model="gemma3n")
    await until(lambda: not psutil.Process().children())
    assert deleted_files() <= before


async def test_a_cancelled_decoding_ends_its_process(sdk: openai.AsyncOpenAI) -> None:
    hour = sound(0, 1000, rate=48_000)
    task = asyncio.create_task(sdk.audio.transcriptions.create(file=("a.wav", hour), model="gemma3n"))
    await until(lambda: bool(psutil.Process().children()))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: not psutil.Process().children())
