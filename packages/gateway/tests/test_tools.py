"""Tools: what the model receives, and how its calls are returned."""

import json
from typing import Any

import httpx
import pytest
from packages.gateway.tests import openai_document
from packages.gateway.tests.conftest import FakeEngine, asked, assert_error, chat, events, post
from packages.gateway.tests.message_helpers import tool

import gemma_wire as wire
from gemma_wire import Chunk, Tool, ToolCallDelta, Usage

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [tool("weather", SCHEMA, description="Of a city.", strict=True), tool("clock"), tool("dice", {})]
WEATHER = Tool(name="weather", description="Of a city.", parameters=SCHEMA, strict=True)
CLOCK, DICE = Tool(name="clock"), Tool(name="dice")


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [*map(named, names)]}}


@pytest.mark.parametrize(
    ("choice", "tools", "required"),
    [
        (None, (WEATHER, CLOCK, DICE), False),
        ("auto", (WEATHER, CLOCK, DICE), False),
        ("none", (), False),
        ("required", (WEATHER, CLOCK, DICE), True),
        (named("clock"), (CLOCK,), True),
        (allowed("auto", "dice", "weather"), (WEATHER, DICE), False),
        (allowed("required", "dice"), (DICE,), True),
        (allowed("auto"), (), False),
    ],
)
async def test_tool_choice(
    client: httpx.AsyncClient, engine: FakeEngine, choice: Any, tools: tuple[Tool, ...], required: bool
) -> None:
    """Tools that may not be called are not shown to the model."""
    body = chat(tools=TOOLS) | ({} if choice is None else {"tool_choice": choice})
    options = (await asked(client, engine, body)).options
    assert (options.tools, options.tool_choice == "required") == (tools, required)


@pytest.mark.parametrize(
    ("rest", "parallel"),
    [({}, True), ({"parallel_tool_calls": False}, False), ({"tool_choice": named("clock")}, False)],
)
async def test_several_calls(
    client: httpx.AsyncClient, engine: FakeEngine, rest: dict[str, Any], parallel: bool
) -> None:
    """A function that ``tool_choice`` names is called once."""
    options = (await asked(client, engine, chat(tools=TOOLS, **rest))).options
    assert options.parallel_tool_calls == parallel


async def test_definitions_among_the_allowed(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """A complete definition is allowed where only its name is needed."""
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOLS[0]]}}
    assert (await asked(client, engine, chat(tools=TOOLS, tool_choice=choice))).options.tools == (WEATHER,)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
        ({"tools": [{"type": "web"}]}, "tools[0].type", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [tool("a b")]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [tool("x" * 65)]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [tool("f", strict="yes")]}, "tools[0].function.strict", "invalid_type"),
        (
            {"tools": [tool("f", returns={"type": "string"})]},
            "tools[0].function.returns",
            "unknown_parameter",
        ),
        ({"tools": [tool("f")] * 129}, "tools", "array_above_max_length"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice", "invalid_value"),
        ({"tools": TOOLS, "tool_choice": 5}, "tool_choice", "invalid_type"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "custom", "custom": {"name": "clock"}}},
            "tool_choice.custom.name",
            "invalid_value",
        ),
        ({"tools": TOOLS, "tool_choice": named("f")}, "tool_choice.function.name", "invalid_value"),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto", "dice", "f")},
            "tool_choice.allowed_tools.tools[1].function.name",
            "invalid_value",
        ),
        (
            {"tools": TOOLS, "tool_choice": allowed("none")},
            "tool_choice.allowed_tools.mode",
            "invalid_value",
        ),
        (
            {"tools": TOOLS, "tool_choice": allowed("required")},
            "tool_choice",
            "invalid_parameter_combination",
        ),
        ({"tool_choice": "required"}, "tool_choice", "invalid_parameter_combination"),
        ({"tool_choice": named("f")}, "tool_choice.function.name", "invalid_value"),
    ],
)
async def test_refused(client: httpx.AsyncClient, body: dict[str, Any], param: str, code: str) -> None:
    assert param in assert_error(await post(client, chat(**body)), 400, param, code)


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("options.tools[0].parameters", "tools[1].function.parameters"),
        ("options.tools[1].parameters.properties.a", "tools[2].function.parameters.properties.a"),
        ("options.tools", "tools"),
        ("options.tool_choice", "tool_choice"),
    ],
)
async def test_errors_about_tools_name_the_clients_parameter(
    client: httpx.AsyncClient, engine: FakeEngine, field: str, param: str
) -> None:
    engine.script = [wire.InvalidRequest("is not supported", field)]
    body = chat(tools=TOOLS, tool_choice=allowed("auto", "clock", "dice"))
    assert_error(await post(client, body), 400, param, "invalid_value")


CALLS = [
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


async def test_calls(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(CALLS)
    body = (await post(client, chat(tools=TOOLS))).json()
    openai_document.assert_valid(body, "CreateChatCompletionResponse")
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    weather = {"name": "weather", "arguments": '{"city":"Bonn"}'}
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": weather},
            {"id": "call_2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
        ],
    }


async def test_streamed_calls(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(CALLS)
    *chunks, _ = events(await post(client, chat(tools=TOOLS, stream=True)))
    for chunk in chunks:
        openai_document.assert_valid(chunk, "CreateChatCompletionStreamResponse")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": None, "refusal": None},
        {"tool_calls": [first(0, "call_1", "weather", "")]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
        {
            "tool_calls": [
                {"index": 0, "function": {"arguments": '"Bonn"}'}},
                first(1, "call_2", "clock", "{}"),
            ]
        },
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def first(index: int, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": call_id, "type": "function", "function": function}


async def test_text_before_a_call(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [Chunk(text="Let me see."), *CALLS]
    message = (await post(client, chat(tools=TOOLS))).json()["choices"][0]["message"]
    assert (message["content"], len(message["tool_calls"])) == ("Let me see.", 2)


async def test_a_response_with_tool_calls_is_a_valid_request_message(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = list(CALLS)
    message = (await post(client, chat(tools=TOOLS))).json()["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": json.dumps({})}
        for call in message["tool_calls"]
    ]
    body = chat(tools=TOOLS)
    body["messages"] += [message, *results]
    request = await asked(client, engine, body)
    assert request.messages is not None
    assert [call.name for call in request.messages[1].tool_calls] == ["weather", "clock"]
