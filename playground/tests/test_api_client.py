import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from fake_openai import MODEL, ConnectionLost, FakeOpenAI, Part, Refuse, Request, StreamTruncated, call
from gemma_playground.api_client import CONNECTION_LOST, ApiClient, ChatResponse

QUESTION: dict[str, Any] = {"model": MODEL, "messages": [], "stream": True}


async def ask(fake: FakeOpenAI, **request: Any) -> ChatResponse:
    """The last update of a response."""
    client = ApiClient(fake.base_url, "sk-secret")
    updates = [answer async for answer in client.stream({**QUESTION, **request})]
    await client.close()
    return updates[-1]


async def test_a_response_has_text_token_counts_and_times(fake: FakeOpenAI) -> None:
    fake.script = lambda request: ["A ", "circle"]
    answer = await ask(fake)
    assert answer.messages == [{"role": "assistant", "content": "A circle"}]
    assert answer.error == ""
    assert answer.choice is not None
    assert answer.choice.finish_reason == "stop"
    assert answer.completion is not None
    assert answer.completion.usage is not None
    assert answer.completion.usage.completion_tokens == 2
    assert answer.started < answer.first <= answer.last
    assert fake.keys == {"Bearer sk-secret"}
    assert fake.requests[0]["stream_options"] == {"include_usage": True}


async def test_a_response_that_ends_between_two_updates_is_yielded_once_more(fake: FakeOpenAI) -> None:
    looked = threading.Event()

    def waits(request: Request) -> Iterator[Part]:
        yield "A "
        looked.wait(60)
        yield "circle"

    fake.script = waits
    seen: list[str | None] = []
    client = ApiClient(fake.base_url)
    async for answer in client.stream({**QUESTION}):
        seen.append(answer.choice.finish_reason if answer.choice else None)
        looked.set()
        await asyncio.sleep(0.5)  # as long as a page may take to be told
    await client.close()
    assert seen[0] is None
    assert seen[-1] == "stop"


async def test_tool_calls_are_joined_and_log_probabilities_kept(fake: FakeOpenAI) -> None:
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    token = {"token": "x", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    fake.script = lambda request: [
        call("add", '{"a"', "c1"),
        {"delta": {"tool_calls": [rest]}},
        {"delta": {"content": "x"}, "logprobs": {"content": [token], "refusal": None}},
    ]
    answer = await ask(fake)
    function = {"name": "add", "arguments": '{"a": 1}'}
    calls = [{"id": "c1", "type": "function", "function": function}]
    assert answer.messages == [{"role": "assistant", "content": "x", "tool_calls": calls}]
    assert answer.choice is not None
    assert answer.choice.logprobs is not None
    assert [each.token for each in answer.choice.logprobs.content or ()] == ["x"]


@pytest.mark.parametrize("status", [400, 401, 429, 503])
async def test_a_refusal_is_the_servers_own_words(fake: FakeOpenAI, status: int) -> None:
    def refuses(request: Request) -> Iterable[Part]:
        raise Refuse(status, "No, thank you.")

    fake.script = refuses
    assert (await ask(fake)).error == f"No, thank you. (HTTP {status})"


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (Refuse(500, "The model died."), "The model died."),
        (StreamTruncated(), CONNECTION_LOST),
        (ConnectionLost(), CONNECTION_LOST),
    ],
)
async def test_a_stream_that_breaks_off_is_told_and_what_was_said_stays(
    fake: FakeOpenAI, ending: Exception, told: str
) -> None:
    def breaks(request: Request) -> Iterator[Part]:
        yield "A "
        raise ending

    fake.script = breaks
    answer = await ask(fake)
    assert ([each["content"] for each in answer.messages], answer.error) == (["A "], told)


async def test_a_missing_server_is_reported() -> None:
    client = ApiClient("http://127.0.0.1:9/v1")
    updates = [answer async for answer in client.stream({**QUESTION})]
    await client.close()
    assert updates[-1].error == "The server at http://127.0.0.1:9/v1 does not respond. Is it running?"


def _endless(request: Request) -> Iterator[Part]:
    while True:
        yield "on "
        time.sleep(0.02)


async def test_closing_the_stream_ends_the_request_within_a_second(fake: FakeOpenAI) -> None:
    fake.script = _endless
    client = ApiClient(fake.base_url)
    async with aclosing(client.stream({**QUESTION})) as growing:
        async for answer in growing:
            if answer.messages:
                break
    assert await asyncio.to_thread(fake.disconnected.wait, 1)
    await client.close()


async def test_cancelling_ends_the_request(fake: FakeOpenAI) -> None:
    fake.script = _endless
    client, begun = ApiClient(fake.base_url), asyncio.Event()

    async def listen() -> None:
        async for answer in client.stream({**QUESTION}):
            if answer.messages:
                begun.set()

    listening = asyncio.create_task(listen())
    await begun.wait()
    listening.cancel()
    await asyncio.wait({listening})
    assert await asyncio.to_thread(fake.disconnected.wait, 1)
    await client.close()


def test_an_invalid_response_is_reported_in_one_sentence() -> None:
    client = ApiClient("http://127.0.0.1:8080/v1")
    assert "not a valid chat completion" in client.describe_error(ValueError("x"))
    assert "does not respond" in client.describe_error(httpx.ConnectError("x"))


METRICS = """# HELP x
gemma_api_num_requests_running 2.0
gemma_api_inter_token_latency_seconds_count {pieces}
gemma_api_time_to_first_token_seconds_count 1.0
"""


async def test_the_status_is_refreshed_at_most_once_per_second_and_recovers(fake: FakeOpenAI) -> None:
    clock = [100.0]
    fake.pages |= {"/health": (200, {"status": "ok"}), "/metrics": (200, METRICS.format(pieces=10))}
    client = ApiClient(fake.base_url, clock=lambda: clock[0])
    assert client.state == "connecting"
    await client.refresh()
    first = client.facts
    assert (client.state, client.models, first["running"], first["tokens/s now"]) == (
        "ready",
        [MODEL],
        2,
        None,
    )
    fake.pages |= {"/health": (503, {"error": {"message": "Loading."}})}
    fake.pages |= {"/metrics": (200, METRICS.format(pieces=30))}
    await client.refresh()
    assert client.facts is first
    clock[0] += 2
    await client.refresh()
    assert (client.state, client.facts["health"]) == ("down", "Loading. (HTTP 503)")
    fake.pages |= {"/health": (200, ["no", "mapping"])}
    clock[0] += 2
    await client.refresh()
    assert client.state == "ready"
    fake.pages |= {"/metrics": (200, METRICS.format(pieces=50))}
    clock[0] += 2
    await client.refresh()
    assert client.facts["tokens/s now"] == 10
    fake.stop()
    clock[0] += 2
    await client.refresh()
    assert "does not respond" in client.facts["health"]
    assert client.plot()["data"][-1][1] == 10
    await client.close()


async def test_a_transcript_is_a_response(fake: FakeOpenAI) -> None:
    client = ApiClient(fake.base_url, "sk-secret")
    updates = [answer async for answer in client.transcribe(MODEL, "mp3", b"ID3 talk")]
    refused = [answer async for answer in client.transcribe(MODEL, "mp3", b"ID3 refused")]
    await client.close()
    assert updates[-1].messages == [{"role": "assistant", "content": "Good evening."}]
    assert updates[-1].error == ""
    assert updates[-1].completion is not None
    assert updates[-1].completion.usage is not None
    assert updates[-1].completion.usage.completion_tokens == 2
    assert b'filename="recording.mp3"' in fake.forms[0]
    assert b"ID3 talk" in fake.forms[0]
    assert "The file is not audio." in refused[-1].error
