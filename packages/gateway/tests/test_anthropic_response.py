"""Messages and events as the Messages API sends them, validated with the SDK's types."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from packages.gateway.tests.anthropic_helpers import (
    END,
    asked,
    assert_anthropic_error,
    message,
    read_events,
    read_message,
    send,
    tool,
)
from packages.gateway.tests.conftest import MODEL, FakeEngine, Pause, gateway, until

import gemma_wire as wire
from gemma_wire import Chunk, ToolCallDelta, Usage

SO_FAR = Usage(prompt_tokens=7, completion_tokens=1, cached_tokens=3)
TEXT = [Chunk(text="Hello", choice_usage=SO_FAR), Chunk(text=" world"), END]
CALLS = [
    Chunk(text="Let me see.\n"),
    Chunk(tool_calls=(ToolCallDelta(index=0, id="call_1", name="weather"),)),
    Chunk(tool_calls=(ToolCallDelta(index=0, arguments='{"city":'),)),
    Chunk(
        tool_calls=(
            ToolCallDelta(index=0, arguments='"Bonn"}'),
            ToolCallDelta(index=1, id="call_2", name="clock", arguments="{}"),
        )
    ),
    Chunk(finish_reason="tool_calls", usage=Usage(prompt_tokens=7, completion_tokens=20)),
]
TOOLS = [tool("weather", {"city": {"type": "string"}}), tool("clock")]


async def test_a_message(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(TEXT)
    response = await send(client, message())
    assert read_message(response).id.startswith("msg_")
    body = response.json()
    del body["id"]
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "Hello world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 3,
            "output_tokens": 2,
            "service_tier": "standard",
        },
    }


async def test_a_stream(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(TEXT)
    start, *rest = read_events(await send(client, message(stream=True)))
    assert engine.asked[-1].options.continuous_usage_stats
    assert start["type"] == "message_start"
    assert (start["message"]["content"], start["message"]["stop_reason"]) == ([], None)
    usage = start["message"]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (4, 3, 1)
    counts = {"input_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3}
    assert rest == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " world"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {**counts, "output_tokens": 2},
        },
        {"type": "message_stop"},
    ]


@pytest.mark.parametrize(
    ("last", "reason", "sequence"),
    [
        (Chunk(finish_reason="stop"), "end_turn", None),
        (Chunk(finish_reason="length"), "max_tokens", None),
        (Chunk(finish_reason="tool_calls"), "tool_use", None),
        (Chunk(finish_reason="stop", stop_string="END"), "stop_sequence", "END"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_stop_reasons(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    last: Chunk,
    reason: str,
    sequence: str | None,
    stream: bool,
) -> None:
    """A message may be empty."""
    engine.script = [last.model_copy(update={"usage": END.usage})]
    response = await send(client, message(stream=stream))
    if stream:
        start, delta, stop = read_events(response)
        assert (start["type"], stop["type"]) == ("message_start", "message_stop")
        assert delta["delta"] == {"stop_reason": reason, "stop_sequence": sequence}
    else:
        read = read_message(response)
        assert (read.content, read.stop_reason, read.stop_sequence) == ([], reason, sequence)


async def test_calls(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(CALLS)
    response = await send(client, message(tools=TOOLS))
    assert read_message(response).stop_reason == "tool_use"
    content = response.json()["content"]
    assert content == [
        {"type": "text", "text": "Let me see.\n"},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bonn"}},
        {"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}},
    ]
    results = [{"type": "tool_result", "tool_use_id": each["id"]} for each in content[1:]]
    history = [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
    request = await asked(client, engine, message(messages=history))  # the content is valid in a history
    assert request.messages is not None
    assert [call.id for call in request.messages[0].tool_calls] == ["toolu_1", "toolu_2"]


async def test_streamed_calls(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(CALLS)
    events = read_events(await send(client, message(tools=TOOLS, stream=True)))
    assert [(event["type"], event.get("index")) for event in events[1:-2]] == [
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
    ]
    deltas = [event["delta"] for event in events if event.get("index") == 1 and "delta" in event]
    assert "".join(delta["partial_json"] for delta in deltas) == '{"city":"Bonn"}'


async def test_a_call_that_the_end_cuts(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The reference engine completes no JSON."""
    call = ToolCallDelta(index=0, id="call_1", name="weather", arguments='{"city":"Bonn","days":[1,')
    engine.script = [Chunk(tool_calls=(call,)), Chunk(finish_reason="length", usage=END.usage)]
    body = (await send(client, message(tools=TOOLS))).json()
    assert body["content"][0]["input"] == {"city": "Bonn", "days": [1]}


async def test_pings_and_an_error_within_a_stream(engine: FakeEngine) -> None:
    engine.script = [Pause(0.3), Chunk(text="Hel"), wire.Unavailable("The model was restarted.")]
    async with gateway(engine, sse_ping_seconds=0.1) as client:
        response = await send(client, message(stream=True))
    events = read_events(response)
    assert [event["type"] for event in events if event["type"] != "ping"] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "error",
    ]
    assert events[0] == {"type": "ping"}
    error = {"type": "overloaded_error", "message": "The model was restarted."}
    assert events[-1] == {"type": "error", "error": error, "request_id": response.headers["request-id"]}


async def test_schema_reports(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Of a tool's schema that is not strict."""
    engine.script = [
        Chunk(text="x", unenforced=("tools[0]: not",)),
        END.model_copy(update={"schema_valid": True}),
    ]
    headers = (await send(client, message(tools=TOOLS))).headers
    assert (headers["x-unenforced-keywords"], headers["x-schema-valid"]) == ("tools[0]: not", "true")


@pytest.mark.parametrize(
    ("error", "status", "kind", "says"),
    [
        (wire.InvalidRequest("is wrong", "options.top_k"), 400, "invalid_request_error", "'top_k'"),
        (wire.ContextLengthExceeded("The prompt is too long."), 400, "invalid_request_error", "messages: "),
        (wire.Overloaded("The queue is full."), 429, "rate_limit_error", "queue"),
        (wire.EngineFailure("secret"), 500, "api_error", "server had an error"),
        (wire.Unavailable("It is loading."), 503, "overloaded_error", "loading"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_of_the_engine(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    error: wire.WireError,
    status: int,
    kind: str,
    says: str,
    stream: bool,
) -> None:
    engine.script = [error]
    assert says in assert_anthropic_error(await send(client, message(stream=stream)), status, kind)


async def test_a_client_that_leaves_cancels_the_generation(url: str, engine: FakeEngine) -> None:
    engine.script = [Chunk(text="Hello"), asyncio.Event()]
    async with httpx.AsyncClient(base_url=url) as client:
        async with client.stream("POST", "/v1/messages", json=message(stream=True)) as response:
            async for line in response.aiter_lines():
                if "text_delta" in line:
                    break
        await until(lambda: not engine.running)


async def test_counting_tokens(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The engine tokenizes the prompt that a message would have."""
    body = message([{"type": "text", "text": "Hi"}], system="S", tools=TOOLS)
    generated = await asked(client, engine, body)
    del body["max_tokens"]
    response = await send(client, body, "/v1/messages/count_tokens?beta=true")
    assert response.json() == {"input_tokens": 1}  # the fake engine's
    counted = engine.asked[-1]
    assert counted.options.op == "tokenize"
    assert (counted.messages, counted.images) == (generated.messages, generated.images)
    prompt = {"tools", "add_generation_prompt", "continue_final_message", "model"}
    assert counted.options.model_dump(include=prompt) == generated.options.model_dump(include=prompt)


PROMPT = {"model": "gemma3n", "messages": [{"role": "user", "content": "Hi"}]}
REFUSALS: list[tuple[dict[str, Any], int, str]] = [
    ({"json": {}}, 400, "invalid_request_error"),
    ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "invalid_request_error"),
    ({"content": b"x", "headers": {"content-type": "text/plain"}}, 400, "invalid_request_error"),
    ({"json": {**PROMPT, "model": "claude-opus-4-1"}}, 404, "not_found_error"),
    ({"json": {**PROMPT, "system": "x" * 5000}}, 413, "request_too_large"),
]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(("request_", "status", "kind"), REFUSALS)
async def test_errors_before_the_engine(
    engine: FakeEngine, path: str, request_: dict[str, Any], status: int, kind: str
) -> None:
    body = dict(request_)
    if path == "/v1/messages" and "model" in body.get("json", {}):
        body["json"] = {**body["json"], "max_tokens": 5}
    async with gateway(engine, max_body_bytes=4000) as client:
        assert_anthropic_error(await client.post(path, **body), status, kind)
    assert not engine.asked


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
        ("POST", "/v1/messages/", 404, "not_found_error"),
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/messages/%0a", 404, "not_found_error"),
    ],
)
async def test_other_paths_below(
    client: httpx.AsyncClient, method: str, path: str, status: int, kind: str
) -> None:
    assert_anthropic_error(await client.request(method, path, json={}), status, kind)


async def test_too_many_requests(engine: FakeEngine) -> None:
    engine.script = [asyncio.Event()]
    async with gateway(engine, max_concurrent=1) as client:
        first = asyncio.create_task(send(client, message()))
        await until(lambda: engine.running == 1)
        assert_anthropic_error(await send(client, message()), 429, "rate_limit_error")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_request_that_takes_too_long(engine: FakeEngine) -> None:
    engine.script = [asyncio.Event()]
    async with gateway(engine, request_seconds=0.1) as client:
        assert_anthropic_error(await send(client, message()), 408, "timeout_error")


async def test_malformed_http(url: str) -> None:
    """The HTTP server itself responds, in the form of the request's path if it is known."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = f"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}Content-Type: application/json\r\n\r\nnot a length\r\n".encode())
    response = await reader.read()
    writer.close()
    body = json.loads(response.partition(b"\r\n\r\n")[2])
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["request_id"].encode() in response.partition(b"\r\n\r\n")[0]
