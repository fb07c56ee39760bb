"""What the engine receives for a request of the Messages API."""

from base64 import b64encode
from typing import Any

import httpx
import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_count_tokens_params as beta_count_tokens_params
from anthropic.types.beta import message_create_params as beta_create_params
from packages.gateway.tests.anthropic_helpers import (
    LOOK,
    RESULT,
    USE,
    asked,
    assert_anthropic_error,
    message,
    read_events,
    send,
    text,
    tool,
)
from packages.gateway.tests.coding_agent_request import HEADERS, PATH, coding_agent_request
from packages.gateway.tests.conftest import MODEL, FakeEngine, gateway
from packages.gateway.tests.message_helpers import data_url, png

import gemma_wire as wire
from gemma_gateway.anthropic.schema import CountTokensRequest, MessagesRequest
from gemma_wire import ImagePart, InvalidRequest, Message, TextPart, Tool

CALL = wire.ToolCall(id="toolu_1", name="look", arguments='{"at": "ü"}')
PNG = {"type": "base64", "media_type": "image/png", "data": b64encode(png()).decode()}


async def test_a_minimal_request(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    request = await asked(client, engine, message())
    assert request.messages == (Message(role="user", content="Hi"),)
    assert (request.max_tokens, request.temperature, request.top_p, request.stream) == (50, None, None, True)
    assert request.options == wire.Options()


async def test_sampling_and_stopping(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = message(temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END", "\n\n"])
    request = await asked(client, engine, body)
    assert (request.temperature, request.top_p) == (0.5, 0.9)
    assert (request.options.top_k, request.options.stop) == (40, ("END", "\n\n"))


async def test_system_blocks_and_texts_are_separated(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    cached = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = message([text("A"), text("B", **cached)], system=[text("One.", **cached), text("Two.")])
    request = await asked(client, engine, body)
    assert request.messages == (
        Message(role="system", content=(TextPart(text="One."), TextPart(text="\n\nTwo."))),
        Message(role="user", content=(TextPart(text="A"), TextPart(text="\n\nB"))),
    )


async def test_a_history_with_tools(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Thinking is omitted, an error is marked, and what follows the results is the user's."""
    history = [
        {"role": "user", "content": "Look."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
                text("Let me "),
                text("look."),
                USE,
                {**USE, "id": "toolu_2"},
            ],
        },
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {**RESULT, "content": [text("A dog."), {"type": "image", "source": PNG}]},
                {**RESULT, "tool_use_id": "toolu_2", "content": "No such place.", "is_error": True},
                text("And?"),
            ],
        },
    ]
    request = await asked(client, engine, message(messages=history, tools=[LOOK]))
    calls = (CALL, CALL.model_copy(update={"id": "toolu_2"}))
    error = (TextPart(text="Error: "), TextPart(text="No such place."))
    assert request.messages == (
        Message(role="user", content="Look."),
        Message(
            role="assistant", content=(TextPart(text="Let me "), TextPart(text="look.")), tool_calls=calls
        ),
        Message(role="system", content="Be brief."),
        Message(role="tool", content=(TextPart(text="A dog."), ImagePart()), tool_call_id="toolu_1"),
        Message(role="tool", content=error, tool_call_id="toolu_2"),
        Message(role="user", content=(TextPart(text="And?"),)),
    )
    assert request.images == (png(),)


async def test_documents_and_search_results(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "Text."}
    document = {"type": "document", "title": "Title", "context": "Context", "source": source}
    mixed = {"type": "content", "content": [text("See:"), {"type": "image", "source": PNG}]}
    found = {"type": "search_result", "title": "T", "source": "S", "content": [text("C")]}
    body = message([document, {"type": "document", "source": mixed}, found])
    (turn,) = (await asked(client, engine, body)).messages or ()
    assert turn.content == (
        TextPart(text="Title\nContext\nText."),
        TextPart(text="\n\nSee:"),
        ImagePart(),
        TextPart(text="T\nS\nC"),
    )


async def test_images(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The media type is not needed; a URL may be a data URL."""
    sources = [PNG, {"type": "base64", "data": PNG["data"]}, {"type": "url", "url": data_url(png())}]
    body = message([{"type": "image", "source": source} for source in sources])
    assert (await asked(client, engine, body)).images == (png(),) * 3


@pytest.mark.parametrize(
    ("choice", "tools", "required", "parallel"),
    [
        (None, ("look", "wait"), False, True),
        ({"type": "auto"}, ("look", "wait"), False, True),
        ({"type": "auto", "disable_parallel_tool_use": True}, ("look", "wait"), False, False),
        ({"type": "any"}, ("look", "wait"), True, True),
        ({"type": "tool", "name": "wait"}, ("wait",), True, False),
        ({"type": "none"}, (), False, True),
    ],
)
async def test_tool_choice(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    choice: Any,
    tools: tuple[str, ...],
    required: bool,
    parallel: bool,
) -> None:
    """Tools that Anthropic runs or defines are left out."""
    given = [
        LOOK,
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        tool("wait", type="custom", strict=True, cache_control={"type": "ephemeral"}),
        tool("later", allowed_callers=["code_execution_20250825"]),
        {"type": "computer_toolset_20260801"},
    ]
    options = (await asked(client, engine, message(tools=given, tool_choice=choice))).options
    assert tuple(tool.name for tool in options.tools) == tools
    assert (options.tool_choice == "required", options.parallel_tool_calls) == (required, parallel)
    if len(tools) == 2:
        schema = {"type": "object", "properties": {"at": {"type": "string"}}}
        assert options.tools[0] == Tool(name="look", description="Look.", parameters=schema)
        assert options.tools[1].strict


@pytest.mark.parametrize("param", ["output_config", "output_format"])
async def test_json_output(client: httpx.AsyncClient, engine: FakeEngine, param: str) -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    body = message(**{param: {"format": form, "effort": "high"} if param == "output_config" else form})
    options = (await asked(client, engine, body)).options
    assert options.grammar == wire.JsonGrammar(json_schema={"type": "object"}, strict=True)
    engine.script = [InvalidRequest("has an unknown keyword", "options.grammar.json_schema")]
    name = "output_config.format.schema" if param == "output_config" else "output_format.schema"
    assert f"'{name}'" in assert_anthropic_error(await send(client, body), 400, "invalid_request_error")


async def test_a_prefilled_answer_is_continued(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = message(
        messages=[*message()["messages"], {"role": "assistant", "content": "The best answer is ("}]
    )
    options = (await asked(client, engine, body)).options
    assert (options.continue_final_message, options.add_generation_prompt) == (True, False)


HARMLESS = {
    "metadata": {"user_id": "user_1"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "cache_control": {"type": "ephemeral"},
    "service_tier": "auto",
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "container": None,
    "mcp_servers": [],
    "output_config": {"effort": "max"},
    "speed": "fast",
    "inference_geo": "eu",
    "diagnostics": {"previous_message_id": None},
}


async def test_parameters_without_effect(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert await asked(client, engine, message(**HARMLESS)) == await asked(client, engine, message())


@pytest.mark.parametrize("header", ["anthropic-beta", "anthropic-version"])
async def test_headers_and_query_without_effect(client: httpx.AsyncClient, header: str) -> None:
    headers = {header: "unheard-of-2030-01-01"}
    response = await client.post("/v1/messages?beta=true", json=message(), headers=headers)
    assert response.status_code == 200


async def test_a_model_by_its_alias(engine: FakeEngine) -> None:
    async with gateway(engine, model_aliases="claude-*=gemma3n, gpt-4o=google/gemma-3n-E4B-it") as client:
        for name in ("claude-sonnet-4-20250514", "gpt-4o"):
            response = await send(client, message(model=name))
            assert response.json()["model"] == MODEL
        response = await send(client, message(model="mistral"))
    assert "'mistral'" in assert_anthropic_error(response, 404, "not_found_error")


async def test_a_request_of_a_coding_agent(engine: FakeEngine) -> None:
    body = coding_agent_request(paragraphs=800)
    async with gateway(engine, model_aliases="claude-*=gemma3n") as client:
        response = await client.post(PATH, json=body, headers=HEADERS)
        assert [event["type"] for event in read_events(response)][-1] == "message_stop"
        request = engine.asked[-1]
        count = {name: body[name] for name in ("model", "messages", "system", "tools", "thinking")}
        counted = await asked(client, engine, count, "/v1/messages/count_tokens?beta=true")
    assert [tool.name for tool in request.options.tools] == [tool["name"] for tool in body["tools"][:8]]
    assert request.options.tools[1].parameters == body["tools"][1]["input_schema"]
    assert (counted.messages, counted.options.tools) == (request.messages, request.options.tools)
    assert request.messages is not None
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool", "user"]
    assert request.messages[0].size > 64_000
    assert request.max_tokens == 32_000


IN_HEADERS = {"betas", "workspace_id"}
"""Parameters of the SDK's methods that it sends in headers."""


@pytest.mark.parametrize(
    ("params", "schema"),
    [
        (message_create_params.MessageCreateParamsStreaming, MessagesRequest),
        (beta_create_params.MessageCreateParamsStreaming, MessagesRequest),
        (message_count_tokens_params.MessageCountTokensParams, CountTokensRequest),
        (beta_count_tokens_params.MessageCountTokensParams, CountTokensRequest),
    ],
)
def test_every_parameter_of_the_sdk_has_a_treatment(params: Any, schema: Any) -> None:
    assert params.__annotations__.keys() - IN_HEADERS <= schema.model_fields.keys()
