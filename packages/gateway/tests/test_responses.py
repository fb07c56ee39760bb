"""``/v1/responses``: complete and streamed responses."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from packages.gateway.tests.conftest import FakeEngine, Pause, assert_error, gateway, until
from packages.gateway.tests.response_helpers import (
    CALL,
    WEATHER,
    ask,
    end,
    read_events,
    respond,
    stream,
)

from gemma_wire import Alternative, Chunk, EngineFailure, InvalidRequest, Overloaded, TokenLogprob

TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
CALL_EVENTS = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]
LOGPROBS: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}


def types(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]


def token(text: str) -> TokenLogprob:
    utf8 = tuple(text.encode())
    top = (Alternative(token_id=1, token=text, utf8=utf8, logprob=-0.5),)
    return TokenLogprob(token_id=1, token=text, utf8=utf8, logprob=-0.5, top=top)


def without_ids(response: Any) -> Any:
    """The response without what differs between two of the same request."""
    items = [{**item, "id": None} for item in response["output"]]
    return {**response, "id": None, "created_at": 0, "completed_at": 0, "output": items}


async def test_a_complete_response(client: httpx.AsyncClient) -> None:
    response = await respond(client, ask(metadata={"a": "b"}, instructions="Be brief.", max_output_tokens=5))
    (message,) = response["output"]
    (part,) = message["content"]
    assert (message["role"], message["status"], part["text"]) == ("assistant", "completed", "Hello world")
    assert response["status"] == "completed"
    assert response["usage"]["input_tokens"] == 7
    assert response["usage"]["total_tokens"] == 9
    assert (response["metadata"], response["instructions"]) == ({"a": "b"}, "Be brief.")
    assert (response["max_output_tokens"], response["store"]) == (5, False)
    assert response["id"].startswith("resp_")
    assert isinstance(response["created_at"], int)
    assert isinstance(response["completed_at"], int)


async def test_the_events_of_a_stream(client: httpx.AsyncClient) -> None:
    events = await stream(client, ask())
    assert types(events) == TEXT_EVENTS
    added, part, *deltas = events[2:6]
    assert added["item"] == {**events[8]["item"], "status": "in_progress", "content": []}
    assert {each["item_id"] for each in (part, *deltas, events[6], events[7])} == {added["item"]["id"]}
    assert [each["delta"] for each in deltas] == ["Hello", " world"]
    assert events[6]["text"] == "Hello world"
    assert events[-1]["response"]["output"] == [events[8]["item"]]
    assert events[0]["response"]["status"] == "in_progress"
    assert "usage" not in events[0]["response"]


@pytest.mark.parametrize(
    "script",
    [
        [Chunk(text="Hello"), Chunk(text=" world"), end()],
        [Chunk(text="I look."), *CALL, end("tool_calls")],
        [Chunk(text="cut"), end("length")],
        [end()],
    ],
)
async def test_the_last_event_has_the_complete_response(
    client: httpx.AsyncClient, engine: FakeEngine, script: list[Any]
) -> None:
    engine.script = script
    body = ask(tools=[WEATHER])
    events = await stream(client, body)
    assert without_ids(events[-1]["response"]) == without_ids(await respond(client, body))


async def test_a_call_of_a_function(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [Chunk(text="I look."), *CALL, end("tool_calls")]
    events = await stream(client, ask(tools=[WEATHER]))
    assert types(events)[-6:-1] == CALL_EVENTS
    done, item = events[-3], events[-2]["item"]
    assert (done["arguments"], done["name"]) == ('{"city":"Rome"}', "weather")
    assert (item["call_id"], item["arguments"], item["status"]) == ("call_1", '{"city":"Rome"}', "completed")
    kinds = [each["type"] for each in events[-1]["response"]["output"]]
    assert kinds == ["message", "function_call"]
    assert [event["output_index"] for event in events if "output_index" in event] == [0] * 6 + [1] * 5


async def test_text_after_a_call_is_another_message(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [*CALL, Chunk(text="Done."), end()]
    response = await respond(client, ask(tools=[WEATHER]))
    assert [each["type"] for each in response["output"]] == ["function_call", "message"]


async def test_a_response_of_nothing_has_an_empty_message(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = [end()]
    (message,) = (await respond(client, ask()))["output"]
    assert message["content"][0]["text"] == ""


async def test_a_response_that_reaches_its_limit_is_incomplete(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = [Chunk(text="Hel"), end("length")]
    events = await stream(client, ask(max_output_tokens=1))
    response = events[-1]["response"]
    assert events[-1]["type"] == "response.incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"


async def test_log_probabilities(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [
        Chunk(text="A", logprobs=(token("A"),)),
        Chunk(logprobs=(token("B"),)),
        Chunk(text="B", logprobs=(token("C"),)),
        Chunk(logprobs=(token(""),)),
        end(),
    ]
    events = await stream(client, ask(**LOGPROBS))
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [(each["delta"], len(each["logprobs"])) for each in deltas] == [("A", 1), ("B", 2), ("", 1)]
    (part,) = events[-1]["response"]["output"][0]["content"]
    assert [each["token"] for each in part["logprobs"]] == ["A", "B", "C", ""]
    assert part["logprobs"][0]["bytes"] == [65]
    assert part["logprobs"][0]["top_logprobs"][0]["logprob"] == -0.5
    assert engine.asked[-1].options.logprobs == 1


async def test_top_logprobs_alone_report_nothing(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await respond(client, ask(top_logprobs=5))
    assert engine.asked[-1].options.logprobs is None


@pytest.mark.parametrize("padded", [True, False])
async def test_only_deltas_are_padded(client: httpx.AsyncClient, padded: bool) -> None:
    events = await stream(client, ask(stream_options={"include_obfuscation": padded}))
    wanted = [padded and event["type"].endswith(".delta") for event in events]
    assert ["obfuscation" in event for event in events] == wanted


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(EngineFailure("broken"), 500, "internal_error"), (Overloaded("full"), 429, "rate_limit_exceeded")],
)
async def test_an_error_before_the_first_token_has_its_status(
    client: httpx.AsyncClient, engine: FakeEngine, error: Exception, status: int, code: str
) -> None:
    engine.script = [error]
    for body in (ask(), ask(stream=True)):
        assert_error(await client.post("/v1/responses", json=body), status, None, code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineFailure("broken"), "server_error"),
        (Overloaded("full"), "rate_limit_exceeded"),
        (InvalidRequest("is wrong", "max_tokens"), "invalid_prompt"),
    ],
)
async def test_an_error_in_the_stream_is_its_last_event(
    client: httpx.AsyncClient, engine: FakeEngine, error: Exception, code: str
) -> None:
    engine.script = [Chunk(text="Hel"), error]
    events = await stream(client, ask())
    response = events[-1]["response"]
    assert events[-1]["type"] == "response.failed"
    assert (response["status"], response["error"]["code"]) == ("failed", code)
    assert response["output"][0]["content"][0]["text"] == "Hel"
    assert response["output"][0]["status"] == "incomplete"


async def test_an_error_before_any_event_of_a_slow_stream(engine: FakeEngine) -> None:
    """The response has begun with pings."""
    engine.script = [Pause(0.5), EngineFailure("broken")]
    async with gateway(engine, sse_ping_seconds=0.1) as client:
        response = await client.post("/v1/responses", json=ask(stream=True))
    assert response.text.startswith(": ping\n\n")
    assert types(read_events(response.text)) == ["response.failed"]


async def test_a_cancelled_request_leaves_nothing_running(url: str, engine: FakeEngine) -> None:
    engine.script = [Chunk(text="Hel"), asyncio.Event()]
    async with httpx.AsyncClient(base_url=url) as client:
        async with client.stream("POST", "/v1/responses", json=ask(stream=True)) as response:
            await anext(response.aiter_lines())
            assert engine.running == 1
        await until(lambda: engine.running == 0)


async def test_the_sdk_reads_the_stream(url: str, engine: FakeEngine) -> None:
    engine.script = [Chunk(text="I look."), *CALL, end("tool_calls")]
    request: Any = {"model": "gemma3n", "input": "Hi", "tools": [WEATHER]}
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client,
        client.responses.stream(**request) as events,
    ):
        final = await events.get_final_response()
    assert final.output_text == "I look."
    assert final.output[1].type == "function_call"
    assert final.usage
    assert final.usage.input_tokens_details.cached_tokens == 3
