"""Requests for transcription: refused and accepted fields, limits, OpenAI's client, cancellation."""

import asyncio
import contextlib
import gc
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from packages.gateway.tests.conftest import INFO, FakeEngine, assert_error, gateway, serve, until
from packages.gateway.tests.transcription_helpers import (
    TEXT,
    THREE,
    ask,
    hearing_engine,
    sound,
)

from gemma_gateway.app import create_app
from gemma_gateway.settings import GatewaySettings
from gemma_wire import Chunk


@pytest.fixture
def engine() -> FakeEngine:
    return hearing_engine()


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
    before, children = deleted_files(), psutil.Process().children()
    with pytest.raises(openai.BadRequestError):
        await sdk.audio.transcriptions.create(file=("a.wav", bytes(3_000_000)), model="gemma3n")
    await until(lambda: set(psutil.Process().children()) <= set(children))
    assert deleted_files() <= before


async def test_a_cancelled_decoding_ends_its_process(sdk: openai.AsyncOpenAI) -> None:
    hour = sound(0, 1000, rate=48_000)
    children = set(psutil.Process().children())
    task = asyncio.create_task(sdk.audio.transcriptions.create(file=("a.wav", hour), model="gemma3n"))
    await until(lambda: bool(set(psutil.Process().children()) - children))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: set(psutil.Process().children()) <= children)
