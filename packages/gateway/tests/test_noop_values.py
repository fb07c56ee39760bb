"""No-op values: null, false, an empty list or object, a parameter's default."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, asked, assert_error, chat, post
from packages.gateway.tests.message_helpers import call, tool
from pydantic import BaseModel

from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.schema.parameter_table import parameter_table
from gemma_gateway.schema.tokenize import DetokenizeRequest, TokenizeRequest
from gemma_wire import Message, Request

NOTHING: tuple[Any, ...] = (None, False, [], {})
PLAIN = Request(messages=(Message(role="user", content="Hi"),), stream=True)
QUESTIONS: dict[type[BaseModel], dict[str, Any]] = {
    ChatRequest: chat(),
    CompletionRequest: {"model": "gemma3n", "prompt": "Hi"},
    TokenizeRequest: {"prompt": "Hi"},
    DetokenizeRequest: {"tokens": [5]},
}
ASKS = {
    (ChatRequest, "parallel_tool_calls"): [False],
    (ChatRequest, "do_sample"): [False],
    (CompletionRequest, "do_sample"): [False],
    (ChatRequest, "skip_special_tokens"): [False],
    (CompletionRequest, "skip_special_tokens"): [False],
    (ChatRequest, "add_generation_prompt"): [False],
    (TokenizeRequest, "add_generation_prompt"): [False],
    (TokenizeRequest, "add_special_tokens"): [False],
}
"""Where such a value asks for something."""
TOP_LEVEL = [
    (schema, path, value)
    for schema in QUESTIONS
    for path in (*(path for path in parameter_table(schema) if path.isidentifier()), "frobnicate")
    if path not in QUESTIONS[schema]
    for value in NOTHING
    if value not in ASKS.get((schema, path), [])
]


@pytest.mark.parametrize(("schema", "name", "value"), TOP_LEVEL)
def test_every_parameter_accepts_noop_values(schema: type[BaseModel], name: str, value: Any) -> None:
    """Including unsupported and unknown parameters."""
    plain = schema.model_validate(QUESTIONS[schema])
    given = schema.model_validate({**QUESTIONS[schema], name: value})
    differ = {
        field: (getattr(plain, field), getattr(given, field))
        for field in schema.model_fields
        if getattr(plain, field) != getattr(given, field)
    }
    assert not differ or differ == {name: (None, False)}


@pytest.mark.parametrize("value", NOTHING)
async def test_all_noop_values_together_change_nothing(
    client: httpx.AsyncClient, engine: FakeEngine, value: Any
) -> None:
    names = ChatRequest.model_fields.keys() - {"model", "messages"}
    asking = {name for schema, name in ASKS if schema is ChatRequest and value is False}
    request = await asked(client, engine, chat(**dict.fromkeys(names - asking, value)))
    assert request == PLAIN


async def test_nested(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    function: dict[str, Any] = {"name": "f", "description": None, "parameters": None, "strict": None, "x": []}
    body = {
        "model": "gemma3n",
        "messages": [{"role": "user", "content": "Hi", "name": None, "mood": None}],
        "tools": [{"type": "function", "function": function, "cache_control": None}],
        "stream": False,
        "stream_options": {"include_usage": None, "include_obfuscation": None, "surprise": None},
        "response_format": {"type": "text", "json_schema": None},
        "structured_outputs": {"json": None, "regex": None, "choice": [], "disable_fallback": False},
    }
    request = await asked(client, engine, body)
    assert request.messages == PLAIN.messages
    assert request.options.grammar is None
    assert [(tool.name, tool.description, tool.parameters) for tool in request.options.tools] == [
        ("f", "", None)
    ]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
@pytest.mark.parametrize("content", [None, [], ""])
async def test_empty_contents(client: httpx.AsyncClient, engine: FakeEngine, role: str, content: Any) -> None:
    messages = [{"role": role, "content": content}, {"role": "user", "content": "Hi"}]
    request = await asked(client, engine, {"model": "gemma3n", "messages": messages})
    assert request.messages is not None
    assert request.messages[0].content == ""


@pytest.mark.parametrize("content", [None, [], ""])
async def test_an_empty_tool_result(client: httpx.AsyncClient, engine: FakeEngine, content: Any) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": content, "tool_calls": [call("c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": content},
    ]
    request = await asked(client, engine, {"model": "gemma3n", "messages": messages})
    assert request.messages is not None
    assert [message.content for message in request.messages[1:]] == ["", ""]


@pytest.mark.parametrize("value", [True, 0, 1, "", "x", [1], [None], {"a": None}])
@pytest.mark.parametrize(
    ("rest", "param"),
    [
        (lambda value: {"frobnicate": value}, "frobnicate"),
        (lambda value: {"tools": [tool("f", mood=value)]}, "tools[0].function.mood"),
        (
            lambda value: {"stream": True, "stream_options": {"mood": value}},
            "stream_options.mood",
        ),
    ],
)
async def test_unknown_parameters_with_a_value_are_refused(
    client: httpx.AsyncClient, engine: FakeEngine, rest: Any, param: str, value: Any
) -> None:
    assert_error(await post(client, chat(**rest(value))), 400, param, "unknown_parameter")
    assert engine.asked == []


@pytest.mark.parametrize("name", ["messages", "model"])
async def test_required_parameters_are_required(client: httpx.AsyncClient, name: str) -> None:
    for value in NOTHING:
        response = await post(client, chat() | {name: value})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == name


@pytest.mark.parametrize("schema", [{}, True, False])
async def test_an_empty_schema_is_a_schema(
    client: httpx.AsyncClient, engine: FakeEngine, schema: Any
) -> None:
    grammar = (await asked(client, engine, chat(structured_outputs={"json": schema}))).options.grammar
    assert grammar is not None
    assert grammar.model_dump()["json_schema"] == schema
