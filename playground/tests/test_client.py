import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from fake_openai import MODEL, CutShort, FakeOpenAI, HangUp, Piece, Refuse, Request, call
from gemma_playground.client import BROKEN, Answer, Client
from gemma_playground.settings import Settings

QUESTION: dict[str, Any] = {"model": MODEL, "messages": []}


async def ask(fake: FakeOpenAI, **request: Any) -> Answer:
    """The last look at an answer."""
    client = Client(Settings(base_url=fake.base_url, api_key="sk-secret"))
    looks = [answer async for answer in client.ask({**QUESTION, **request})]
    await client.close()
    return looks[-1]


async def test_an_answer_is_text_counts_and_times(fake: FakeOpenAI) -> None:
    fake.script = lambda request: ["A ", "circle"]
    answer = await ask(fake)
    assert (answer.text, answer.finish_reason, answer.error) == ("A circle", "stop", "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    assert answer.ttft is not None
    assert answer.speed is None or answer.speed > 0
    assert fake.keys == {"Bearer sk-secret"}
    assert fake.asked[0]["stream_options"] == {"include_usage": True}


async def test_what_ends_between_two_looks_is_looked_at_once_more(fake: FakeOpenAI) -> None:
    looked = threading.Event()

    def waits(request: Request) -> Iterator[Piece]:
        yield "A "
        looked.wait(60)
        yield "circle"

    fake.script = waits
    seen: list[str] = []
    client = Client(Settings(base_url=fake.base_url))
    async for answer in client.ask({**QUESTION}):
        seen.append(answer.finish_reason)
        looked.set()
        await asyncio.sleep(0.5)  # as long as a page may take to be told
    await client.close()
    assert seen[0] == ""
    assert seen[-1] == "stop"


async def test_without_a_model_the_first_is_asked(fake: FakeOpenAI) -> None:
    await ask(fake, model="")
    assert fake.asked[0]["model"] == MODEL


async def test_calls_are_put_together_and_probabilities_kept(fake: FakeOpenAI) -> None:
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    token = {"token": "x", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    fake.script = lambda request: [
        call("add", '{"a"', "c1"),
        {"delta": {"tool_calls": [rest]}},
        {"delta": {"content": "x"}, "logprobs": {"content": [token], "refusal": None}},
    ]
    answer = await ask(fake)
    calls = [(each.id, each.name, each.arguments) for each in answer.calls.values()]
    assert calls == [("c1", "add", '{"a": 1}')]
    assert [each.token for each in answer.tokens] == ["x"]


@pytest.mark.parametrize("status", [400, 401, 429, 503])
async def test_a_refusal_is_the_servers_own_words(fake: FakeOpenAI, status: int) -> None:
    def refuses(request: Request) -> Iterable[Piece]:
        raise Refuse(status, "No, thank you.")

    fake.script = refuses
    assert (await ask(fake)).error == f"No, thank you. (HTTP {status})"


@pytest.mark.parametrize(
    ("ending", "told"),
    [(Refuse(500, "The model died."), "The model died."), (CutShort(), BROKEN), (HangUp(), BROKEN)],
)
async def test_a_stream_that_breaks_off_is_told_and_what_was_said_stays(
    fake: FakeOpenAI, ending: Exception, told: str
) -> None:
    def breaks(request: Request) -> Iterator[Piece]:
        yield "A "
        raise ending

    fake.script = breaks
    answer = await ask(fake)
    assert (answer.text, answer.error) == ("A ", told)


async def test_nobody_there_is_told() -> None:
    client = Client(Settings(base_url="http://127.0.0.1:9/v1"))
    looks = [answer async for answer in client.ask({**QUESTION})]
    await client.close()
    assert looks[-1].error == "The server at http://127.0.0.1:9/v1 does not answer. Is it running?"


def _endless(request: Request) -> Iterator[Piece]:
    while True:
        yield "on "
        time.sleep(0.02)


async def test_who_leaves_ends_the_stream_within_a_second(fake: FakeOpenAI) -> None:
    fake.script = _endless
    client = Client(Settings(base_url=fake.base_url))
    async with aclosing(client.ask({**QUESTION})) as growing:
        async for answer in growing:
            if answer.text:
                break
    assert await asyncio.to_thread(fake.left.wait, 1)
    await client.close()


async def test_who_is_cancelled_ends_the_stream_too(fake: FakeOpenAI) -> None:
    fake.script = _endless
    client = Client(Settings(base_url=fake.base_url))

    async def listen() -> None:
        async for _ in client.ask({**QUESTION}):
            pass

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.3)
    listening.cancel()
    await asyncio.wait({listening})
    assert await asyncio.to_thread(fake.left.wait, 1)
    await client.close()


def test_an_unlikely_answer_is_a_sentence() -> None:
    client = Client(Settings())
    assert "not what a chat completion looks like" in client.sentence(ValueError("x"))
    assert "does not answer" in client.sentence(httpx.ConnectError("x"))
