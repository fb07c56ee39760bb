import asyncio
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from fakes import Script, chunk, serving
from gemma_playground.client import BROKEN, Answer, Client
from gemma_playground.settings import Settings


async def ask(script: Script, **request: Any) -> Answer:
    """The last look at an answer."""
    with serving(script):
        client = Client(Settings(base_url=script.url, api_key="sk-secret"))
        sent = {"model": "fake", "messages": [], **request}
        looks = [answer async for answer in client.ask(sent)]
        await client.close()
    return looks[-1]


async def test_an_answer_is_text_counts_and_times() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    usage_chunk = {
        **chunk(),
        "choices": [],
        "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 4}},
    }
    script = Script([chunk("A "), chunk("circle"), chunk(finish="stop"), usage_chunk])
    answer = await ask(script)
    assert (answer.text, answer.finish_reason, answer.error) == ("A circle", "stop", "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    assert answer.ttft is not None
    assert answer.speed is None or answer.speed > 0
    assert script.keys == ["Bearer sk-secret"]
    assert script.asked[0]["stream_options"] == {"include_usage": True}


async def test_what_ends_between_two_looks_is_looked_at_once_more() -> None:
    script = Script([chunk("A "), chunk("circle"), chunk(finish="stop")], slow=0.08)
    seen: list[str] = []
    with serving(script):
        client = Client(Settings(base_url=script.url))
        async for answer in client.ask({"model": "fake", "messages": []}):
            seen.append(answer.finish_reason)
            await asyncio.sleep(0.5)  # as long as a page may take to be told
        await client.close()
    assert seen[0] == ""
    assert seen[-1] == "stop"


async def test_without_a_model_the_first_is_asked() -> None:
    script = Script([chunk("x", "stop")])
    await ask(script, model="")
    assert script.asked[0]["model"] == "fake"


async def test_calls_are_put_together_and_probabilities_kept() -> None:
    function = {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a"'}}
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    token = {"token": "x", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    chunks = [
        chunk(delta={"tool_calls": [function]}),
        chunk(delta={"tool_calls": [rest]}),
        chunk("x", "tool_calls", choice={"logprobs": {"content": [token], "refusal": None}}),
    ]
    answer = await ask(Script(chunks))
    assert [(call.id, call.name, call.arguments) for call in answer.calls.values()] == [
        ("c1", "add", '{"a": 1}')
    ]
    assert [each.token for each in answer.tokens] == ["x"]


@pytest.mark.parametrize("status", [400, 401, 429, 503])
async def test_a_refusal_is_the_servers_own_words(status: int) -> None:
    body = {"error": {"message": "No, thank you.", "type": "x", "param": None, "code": None}}
    assert (await ask(Script(status=status, body=body))).error == f"No, thank you. (HTTP {status})"


async def test_an_error_in_mid_stream_keeps_what_was_said() -> None:
    error = {"error": {"message": "The model died.", "type": "server_error", "param": None, "code": None}}
    answer = await ask(Script([chunk("A "), error]))
    assert (answer.text, answer.error) == ("A ", "The model died.")


@pytest.mark.parametrize("whole", [True, False])
async def test_a_stream_that_breaks_off_is_told(whole: bool) -> None:
    answer = await ask(Script([chunk("A ")], whole=whole))
    assert (answer.text, answer.error) == ("A ", BROKEN)


async def test_nobody_there_is_told() -> None:
    client = Client(Settings(base_url="http://127.0.0.1:9/v1"))
    looks = [answer async for answer in client.ask({"model": "fake", "messages": []})]
    await client.close()
    assert looks[-1].error == "The server at http://127.0.0.1:9/v1 does not answer. Is it running?"


async def test_who_leaves_ends_the_stream_within_a_second() -> None:
    script = Script(hold=True)
    with serving(script):
        client = Client(Settings(base_url=script.url))
        async with aclosing(client.ask({"model": "fake", "messages": []})) as growing:
            async for answer in growing:
                if answer.text:
                    break
        assert await asyncio.to_thread(script.left.wait, 1)
        await client.close()


async def test_who_is_cancelled_ends_the_stream_too() -> None:
    script = Script(hold=True)
    with serving(script):
        client = Client(Settings(base_url=script.url))

        async def listen() -> None:
            async for _ in client.ask({"model": "fake", "messages": []}):
                pass

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0.3)
        listening.cancel()
        await asyncio.wait({listening})
        assert await asyncio.to_thread(script.left.wait, 1)
        await client.close()


def test_an_unlikely_answer_is_a_sentence() -> None:
    client = Client(Settings())
    assert "not what a chat completion looks like" in client.sentence(ValueError("x"))
    assert "does not answer" in client.sentence(httpx.ConnectError("x"))
