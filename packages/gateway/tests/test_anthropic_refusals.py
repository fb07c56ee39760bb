"""Requests that the Messages API refuses: the error names the parameter."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests.anthropic_helpers import (
    LOOK,
    RESULT,
    USE,
    assert_anthropic_error,
    message,
    send,
    text,
)
from packages.gateway.tests.conftest import FakeEngine

from gemma_wire import InvalidRequest

CHOSEN = {"tools": [LOOK, {"type": "bash_20250124", "name": "bash"}]}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"colour": "red"}, "colour"),
        ({"container": "container_1"}, "container"),
        ({"mcp_servers": [{"type": "url", "name": "x", "url": "https://x"}]}, "mcp_servers"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "look"}}, "tool_choice.name"),
        ({**CHOSEN, "tool_choice": {"type": "tool", "name": "bash"}}, "tool_choice.name"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"temperature": 3}, "temperature"),
        (
            {
                "output_format": {"type": "json_schema", "schema": {}},
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
            },
            "output_format",
        ),
    ],
)
async def test_refused(client: httpx.AsyncClient, body: dict[str, Any], names: str) -> None:
    message_ = assert_anthropic_error(await send(client, message(**body)), 400, "invalid_request_error")
    assert f"'{names}'" in message_


@pytest.mark.parametrize(
    ("block", "names"),
    [
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, ".source.type"),
        ({"type": "image", "source": {"type": "base64", "data": "eA=="}}, ".source.data"),
        ({"type": "image", "source": {"type": "url", "url": "https://example.org/x.png"}}, ".source.url"),
        ({"type": "document", "source": {"type": "base64", "data": "eA=="}}, ".source.type"),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, ".source.type"),
        ({"type": "container_upload", "file_id": "f"}, ".type"),
        ({**RESULT, "content": "x"}, ".tool_use_id"),
    ],
)
async def test_refused_blocks(client: httpx.AsyncClient, block: dict[str, Any], names: str) -> None:
    response = await send(client, message([text("x"), block]))
    assert f"messages[0].content[1]{names}" in assert_anthropic_error(response, 400, "invalid_request_error")


@pytest.mark.parametrize(
    ("turns", "names"),
    [
        ([{"role": "assistant", "content": [USE]}], "messages[0].content[0]"),
        (
            [{"role": "assistant", "content": [USE]}, {"role": "user", "content": "x"}],
            "messages[0].content[0]",
        ),
        (
            [{"role": "assistant", "content": [USE]}, {"role": "user", "content": [RESULT, RESULT]}],
            "messages[1].content[1].tool_use_id",
        ),
    ],
)
async def test_results_match_calls(client: httpx.AsyncClient, turns: list[Any], names: str) -> None:
    response = await send(client, message(messages=turns))
    assert names in assert_anthropic_error(response, 400, "invalid_request_error")


async def test_many_results_are_counted_as_messages(client: httpx.AsyncClient) -> None:
    calls = [{**USE, "id": f"toolu_{i}"} for i in range(2047)]
    results = [{**RESULT, "tool_use_id": f"toolu_{i}"} for i in range(2047)]
    turns = [{"role": "assistant", "content": calls}, {"role": "user", "content": [*results, text("x")]}]
    response = await send(client, message(messages=turns))
    assert "2,049" in assert_anthropic_error(response, 400, "invalid_request_error")


async def test_errors_of_the_engine_name_the_clients_parameter(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    given = [{"type": "web_search_20250305", "name": "web_search"}, LOOK]
    cases = {"options.tools[0].parameters": "tools[1].input_schema", "options.stop": "stop_sequences"}
    for field, name in cases.items():
        engine.script = [InvalidRequest("is not supported", field)]
        response = await send(client, message(tools=given))
        assert f"'{name}'" in assert_anthropic_error(response, 400, "invalid_request_error")
