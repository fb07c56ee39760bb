"""Requests and responses of the Messages API; responses are validated with the types of Anthropic's SDK."""

import json
from typing import Any

import httpx
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from packages.gateway.tests.conftest import FakeEngine
from pydantic import TypeAdapter

from gemma_wire import Chunk, Request, Usage

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
PATH = "/v1/messages"
END = Chunk(finish_reason="stop", usage=Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3))


def message(content: Any = "Hi", **rest: Any) -> dict[str, Any]:
    """The body of a request with one user message."""
    return {"model": "gemma3n", "max_tokens": 50, "messages": [{"role": "user", "content": content}], **rest}


def text(value: str, **rest: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **rest}


def tool(name: str, properties: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    return {"name": name, "input_schema": {"type": "object", "properties": properties or {}}, **rest}


LOOK = tool("look", {"at": {"type": "string"}}, description="Look.")
USE = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "ü"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1"}


async def send(client: httpx.AsyncClient, body: Any, path: str = PATH) -> httpx.Response:
    return await client.post(path, json=body)


async def asked(client: httpx.AsyncClient, engine: FakeEngine, body: Any, path: str = PATH) -> Request:
    """What the engine receives for a request."""
    response = await send(client, body, path)
    assert response.status_code == 200, response.text
    return engine.asked[-1]


def read_message(response: httpx.Response) -> Message:
    """The message, if every field of it has the type that the SDK declares."""
    assert response.status_code == 200, response.text
    assert response.headers["request-id"] == response.headers["x-request-id"]
    return Message.model_validate_json(response.content, strict=True)


def read_events(response: httpx.Response) -> list[Any]:
    """The events, each of the type that its name says."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    events = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        payload = json.loads(data.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        events.append(payload)
        if payload["type"] not in ("ping", "error"):
            EVENT.validate_json(data.removeprefix("data: "), strict=True)
    return events


def assert_anthropic_error(response: httpx.Response, status: int, kind: str) -> str:
    """Checks the form of an error exactly; returns the message."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert set(body["error"]) == {"type", "message"}
    assert (body["type"], body["error"]["type"]) == ("error", kind), body
    assert body["request_id"] == response.headers["x-request-id"]
    assert int(response.headers["content-length"]) == len(response.content)
    if kind != "request_too_large":  # unknown to the SDK's type
        ErrorResponse.model_validate_json(response.content, strict=True)
    return str(body["error"]["message"])
