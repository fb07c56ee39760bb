"""``/v1/audio/transcriptions`` and ``/translations``: forms, formats and streams."""

import asyncio
from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, Pause, assert_error
from packages.gateway.tests.openai_document import assert_valid
from packages.gateway.tests.transcription_helpers import (
    TEXT,
    ask,
    heard_seconds,
    hearing_engine,
    parse_events,
    say_length,
    sound,
)

from gemma_wire import Chunk, EngineFailure, Overloaded, Request, Usage


@pytest.fixture
def engine() -> FakeEngine:
    return hearing_engine()


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
