"""``/v1/responses``: tools, errors of the engine, and truncation."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, assert_error
from packages.gateway.tests.response_helpers import WEATHER, ask, end, respond

from gemma_wire import Chunk, ContextLengthExceeded, InvalidRequest, Request, Tokens

CLOCK = {"type": "function", "name": "clock", "parameters": None, "strict": True, "description": "Tells."}
HOSTED: list[Any] = [
    {"type": "web_search"},
    {"type": "apply_patch"},
    {"type": "namespace", "name": "a", "description": "b", "tools": [CLOCK]},
    {"type": "mcp", "server_label": "x", "server_url": "https://example.org"},
    {"type": "spell"},
]
OVERFLOW = ContextLengthExceeded("the prompt is too long")


async def options(client: httpx.AsyncClient, engine: FakeEngine, **rest: Any) -> Any:
    await respond(client, ask(**rest))
    return engine.asked[-1].options


async def refused(client: httpx.AsyncClient, param: str, code: str, **rest: Any) -> str:
    return assert_error(await client.post("/v1/responses", json=ask(**rest)), 400, param, code)


async def test_tools_that_are_not_functions_are_omitted(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    response = await respond(client, ask(tools=[*HOSTED, CLOCK, WEATHER]))
    shown = [tool.name for tool in engine.asked[-1].options.tools]
    assert shown == [tool["name"] for tool in response["tools"]] == ["clock", "weather"]
    assert response["tools"][0] == {**CLOCK, "parameters": {}}
    assert response["tools"][1]["strict"] is False
    assert engine.asked[-1].options.tools[0].strict


@pytest.mark.parametrize(
    ("choice", "shown", "required", "parallel"),
    [
        ("auto", {"weather", "clock"}, "auto", True),
        ("none", set(), "auto", True),
        ("required", {"weather", "clock"}, "required", True),
        ({"type": "function", "name": "clock"}, {"clock"}, "required", False),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "clock"}]},
            {"clock"},
            "auto",
            True,
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "weather"}, {"type": "mcp", "server_label": "x"}],
            },
            {"weather"},
            "required",
            True,
        ),
    ],
)
async def test_tool_choice(
    client: httpx.AsyncClient, engine: FakeEngine, choice: Any, shown: set[str], required: str, parallel: bool
) -> None:
    response = await respond(client, ask(tools=[WEATHER, CLOCK], tool_choice=choice))
    asked = engine.asked[-1].options
    assert {tool.name for tool in asked.tools} == shown
    assert (asked.tool_choice, asked.parallel_tool_calls) == (required, parallel)
    assert response["tool_choice"] == choice


async def test_a_choice_that_cannot_be_honoured_is_refused(client: httpx.AsyncClient) -> None:
    code = "invalid_parameter_combination"
    await refused(client, "tool_choice", code, tool_choice="required", tools=HOSTED)
    for kind in ("web_search_preview", "mcp", "shell"):
        choice = {"type": kind, "name": "apply_patch"}
        await refused(client, "tool_choice.type", "unsupported_value", tool_choice=choice, tools=HOSTED)
    named = {"type": "function", "name": "sing"}
    await refused(client, "tool_choice.name", "invalid_value", tool_choice=named, tools=[WEATHER])
    hosted = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}
    await refused(client, "tool_choice", code, tool_choice=hosted, tools=[*HOSTED, WEATHER])


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("options.tools[1].parameters", "tools[2].parameters"),
        ("max_tokens", "max_output_tokens"),
        ("options.grammar.json_schema.type", "text.format.schema.type"),
        ("messages[1].tool_calls[0].arguments", "input[1].arguments"),
        ("options.seed", "seed"),
    ],
)
async def test_errors_of_the_engine_name_the_parameter(
    client: httpx.AsyncClient, engine: FakeEngine, field: str, param: str
) -> None:
    engine.script = [InvalidRequest("is wrong", field)]
    items = [
        {"role": "user", "content": "Hi"},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"},
        {"type": "function_call_output", "call_id": "1", "output": ""},
    ]
    text = {"format": {"type": "json_schema", "name": "a", "schema": {"type": "x"}}}
    tools = [WEATHER, {"type": "web_search"}, CLOCK]
    body = {**ask(items, text=text, tools=tools), "max_output_tokens": 5}
    message = assert_error(await client.post("/v1/responses", json=body), 400, param, "invalid_value")
    assert param in message


def small_engine(engine: FakeEngine, room: int) -> None:
    """Each character of a message is a token, and the context has this number of them."""

    def size(request: Request) -> int:
        return sum(
            len(part.text) for each in request.messages or () for part in each.parts if part.type == "text"
        )

    async def tokens(request: Request) -> Tokens:
        engine.asked.append(request)
        return Tokens(token_ids=(1,) * size(request), text="", pieces=(), context_length=room)

    engine.answer = lambda request: [OVERFLOW] if size(request) >= room else [Chunk(text="Yes"), end()]
    engine.tokens = tokens  # type: ignore[method-assign]


def history(turns: int) -> list[Any]:
    """A developer's message, then questions and replies of ten characters, then the last question."""
    pair = [{"role": "user", "content": "q" * 10}, {"role": "assistant", "content": "a" * 10}]
    return [{"role": "developer", "content": "rule"}, *pair * turns, {"role": "user", "content": "last"}]


async def test_truncation_leaves_out_the_oldest_turns(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    small_engine(engine, 64)
    response = await respond(client, ask(history(10), truncation="auto", instructions="Be brief."))
    sent = engine.asked[-1].messages or ()
    assert [each.content for each in sent[:2]] == ["Be brief.", "rule"]
    assert sent[-1].content == "last"
    assert len(sent) == 6, "56 of 64 tokens may be used: 17 are always kept, and 30 are three turns"
    assert response["truncation"] == "auto"
    assert len(engine.asked) <= 8, "the number of turns is found by bisection"


async def test_truncation_keeps_calls_and_their_results_together(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    small_engine(engine, 40)
    steps = [
        step
        for i in range(5)
        for step in (
            {"type": "function_call", "call_id": str(i), "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": str(i), "output": "r" * 12},
        )
    ]
    await respond(client, ask([{"role": "user", "content": "go"}, *steps], truncation="auto"))
    sent = engine.asked[-1].messages or ()
    assert [each.role for each in sent] == ["user", "assistant", "tool", "assistant", "tool"]
    assert sent[1].tool_calls[0].id == sent[2].tool_call_id == "3"


@pytest.mark.parametrize(("truncation", "room"), [("disabled", 64), (None, 64), ("auto", 4)])
async def test_an_input_that_does_not_fit_is_refused(
    client: httpx.AsyncClient, engine: FakeEngine, truncation: str | None, room: int
) -> None:
    small_engine(engine, room)
    for streamed in (False, True):
        body = ask(history(10), truncation=truncation, stream=streamed)
        response = await client.post("/v1/responses", json=body)
        assert_error(response, 400, "input", "context_length_exceeded")
