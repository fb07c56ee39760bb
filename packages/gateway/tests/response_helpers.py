"""Requests to ``/v1/responses``, and the events of their streams."""

import json
from typing import Any

import httpx
from packages.gateway.tests.openai_document import assert_valid

from gemma_wire import Chunk, ToolCallDelta, Usage

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
USAGE = Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3)
CALL = [
    Chunk(tool_calls=(ToolCallDelta(index=0, id="call_1", name="weather"),)),
    Chunk(tool_calls=(ToolCallDelta(index=0, arguments='{"city":'),)),
    Chunk(tool_calls=(ToolCallDelta(index=0, arguments='"Rome"}'),)),
]


def end(reason: Any = "stop") -> Chunk:
    return Chunk(finish_reason=reason, usage=USAGE)


def ask(items: Any = "Hi", **rest: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"model": "gemma3n", "input": items, **rest}


async def respond(client: httpx.AsyncClient, body: dict[str, Any]) -> Any:
    """The complete response, which is valid for OpenAI's schema."""
    response = await client.post("/v1/responses", json=body)
    assert response.status_code == 200, response.text
    assert_valid(response.json(), "Response")
    return response.json()


async def stream(client: httpx.AsyncClient, body: dict[str, Any]) -> list[Any]:
    """The events of the stream, each of which is valid for OpenAI's schema."""
    response = await client.post("/v1/responses", json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return read_events(response.text)


def read_events(text: str) -> list[Any]:
    """The events in a stream; comments are left out."""
    assert text.endswith("\n\n")
    events = []
    for event in text.removesuffix("\n\n").split("\n\n"):
        if event.startswith(":"):
            continue
        name, data = event.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert_valid(events[-1], "ResponseStreamEvent")
        assert name == f"event: {events[-1]['type']}"
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    return events
