"""Custom tools in chat completions: what the model receives, and how its calls are returned."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests import openai_document
from packages.gateway.tests.conftest import FakeEngine, asked, assert_error, chat, events, post
from packages.gateway.tests.message_helpers import tool

import gemma_wire as wire
from gemma_wire import Chunk, CustomInput, Tool, ToolCallDelta, Usage


def custom(name: str, **rest: Any) -> dict[str, Any]:
    return {"type": "custom", "custom": {"name": name, **rest}}


def grammar(syntax: str, definition: str) -> dict[str, Any]:
    return {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}


TOOLS = [
    custom("run", description="Runs."),
    custom("say", format={"type": "text"}),
    tool("clock"),
    custom("pick", format=grammar("regex", "[a-c]+")),
    custom("add", format=grammar("lark", "start: /[0-9]+/")),
]
RUN, SAY = Tool(name="run", description="Runs.", custom=CustomInput()), Tool(name="say", custom=CustomInput())
PICK = Tool(name="pick", custom=CustomInput(syntax="regex", definition="[a-c]+"))
ADD = Tool(name="add", custom=CustomInput(syntax="lark", definition="start: /[0-9]+/"))


def allowed(*tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [*tools]}}


@pytest.mark.parametrize(
    ("choice", "tools", "required", "parallel"),
    [
        ("auto", (RUN, SAY, Tool(name="clock"), PICK, ADD), False, True),
        (custom("pick"), (PICK,), True, False),
        (allowed(custom("run"), TOOLS[4]), (RUN, ADD), True, True),
        ("none", (), False, True),
    ],
)
async def test_what_the_model_receives(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    choice: Any,
    tools: tuple[Tool, ...],
    required: bool,
    parallel: bool,
) -> None:
    options = (await asked(client, engine, chat(tools=TOOLS, tool_choice=choice))).options
    assert (options.tools, options.tool_choice == "required") == (tools, required)
    assert options.parallel_tool_calls == parallel


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"tools": [{"type": "custom"}]}, "tools[0].custom", "missing_required_parameter"),
        ({"tools": [custom("a b")]}, "tools[0].custom.name", "invalid_value"),
        ({"tools": [custom("f", parameters={"a": 1})]}, "tools[0].custom.parameters", "unknown_parameter"),
        ({"tools": [custom("f", format={"type": "x"})]}, "tools[0].custom.format.type", "invalid_value"),
        (
            {"tools": [custom("f", format=grammar("ebnf", "x"))]},
            "tools[0].custom.format.grammar.syntax",
            "invalid_value",
        ),
        (
            {"tools": [custom("f", format=grammar("lark", ""))]},
            "tools[0].custom.format.grammar.definition",
            "empty_string",
        ),
        ({"tools": TOOLS, "tool_choice": custom("clock")}, "tool_choice.custom.name", "invalid_value"),
        (
            {"tools": TOOLS, "tool_choice": allowed(custom("clock"))},
            "tool_choice.allowed_tools.tools[0].custom.name",
            "invalid_value",
        ),
    ],
)
async def test_refused(client: httpx.AsyncClient, body: dict[str, Any], param: str, code: str) -> None:
    assert param in assert_error(await post(client, chat(**body)), 400, param, code)


async def test_a_bad_grammar_is_named(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [wire.InvalidRequest("is not supported: x", "options.tools[0].custom.definition")]
    body = chat(tools=TOOLS, tool_choice=custom("add"))
    assert_error(await post(client, body), 400, "tools[4].custom.format.grammar.definition", "invalid_value")


CALLS = [
    Chunk(tool_calls=(ToolCallDelta(index=0, id="call_1", name="run", custom=True),)),
    Chunk(tool_calls=(ToolCallDelta(index=0, arguments="ls ", custom=True),)),
    Chunk(
        tool_calls=(
            ToolCallDelta(index=0, arguments="-l", custom=True),
            ToolCallDelta(index=1, id="call_2", name="clock", arguments="{}"),
        )
    ),
    Chunk(finish_reason="tool_calls", usage=Usage(prompt_tokens=7, completion_tokens=20)),
]


async def test_calls(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(CALLS)
    body = (await post(client, chat(tools=TOOLS))).json()
    openai_document.assert_valid(body, "CreateChatCompletionResponse")
    message = body["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "call_1", "type": "custom", "custom": {"name": "run", "input": "ls -l"}},
        {"id": "call_2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
    ]
    results = [{"role": "tool", "tool_call_id": f"call_{i}", "content": "ok"} for i in (1, 2)]
    request = await asked(client, engine, {"model": "gemma3n", "messages": [message, *results]})
    assert request.messages is not None
    assert request.messages[0].tool_calls == (  # a message is valid in a history as it is
        wire.ToolCall(id="call_1", name="run", arguments="ls -l", custom=True),
        wire.ToolCall(id="call_2", name="clock", arguments="{}"),
    )


async def test_streamed_calls(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(CALLS)
    body = chat(tools=TOOLS, stream=True, stream_options={"include_obfuscation": False})
    chunks = events(await post(client, body))[:-1]
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert deltas == [
        {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "run", "input": ""}},
        {"index": 0, "custom": {"input": "ls "}},
        {"index": 0, "custom": {"input": "-l"}},
        {"index": 1, "id": "call_2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
    ]


async def test_counted_by_tokenize(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS[3:]}
    assert (await client.post("/tokenize", json=body)).status_code == 200
    assert engine.asked[-1].options.tools == (PICK, ADD)
