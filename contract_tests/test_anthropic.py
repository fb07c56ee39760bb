"""Anthropic's Python SDK: messages, streams, tools, images, token counts, exceptions.

Every message and event has exactly the types that the SDK declares.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from packages.gateway.tests.coding_agent_request import HEADERS, coding_agent_request
from pydantic import BaseModel, TypeAdapter

from image_files import red_square
from server import HI, Server

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
CITY = {"enum": ["Paris", "Rome"]}
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": CITY, "days": {"enum": [1, 2, 3]}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
WILD: Any = {"max_tokens": 300, "extra_body": {"temperature": 1.5}}
GREEDY: Any = {"max_tokens": 12, "extra_body": {"temperature": 0}}


@pytest.fixture
def claude(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key=server.key, max_retries=0) as client:
        yield client


def exactly(message: BaseModel) -> None:
    """The SDK does not validate what it receives."""
    assert Message.model_validate(message.model_dump(mode="json", exclude_unset=True), strict=True)


def test_a_message_and_its_stream(claude: anthropic.Anthropic, server: Server) -> None:
    options: Any = {"model": server.model, "messages": HI, "system": "Be brief.", **GREEDY}
    complete = claude.messages.create(**options)
    exactly(complete)
    assert (complete.stop_reason, complete.usage.output_tokens) in (("max_tokens", 12), ("end_turn", 12))
    raw = list(claude.messages.create(stream=True, **options))
    for event in raw:
        EVENT.validate_python(event.model_dump(mode="json", exclude_unset=True), strict=True)
    with claude.messages.stream(**options) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert [each.type for each in final.content] == [each.type for each in complete.content]
    assert text == "".join(block.text for block in complete.content if block.type == "text")
    assert final.usage.output_tokens == complete.usage.output_tokens
    start: Any = raw[0]
    usage = start.message.usage
    total = complete.usage.input_tokens + (complete.usage.cache_read_input_tokens or 0)
    assert usage.input_tokens + usage.cache_read_input_tokens == total
    assert (
        claude.messages.count_tokens(model=server.model, messages=HI, system="Be brief.").input_tokens
        == total
    )


def test_a_stop_sequence(claude: anthropic.Anthropic, server: Server) -> None:
    """A stop sequence is a part of what is said without it."""
    options: Any = {"model": server.model, "messages": HI, **GREEDY}
    (block,) = claude.messages.create(**options).content
    assert block.type == "text"
    stop = block.text[len(block.text) // 2 :][:2]
    answer = claude.messages.create(stop_sequences=["never said", stop], **options)
    exactly(answer)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)
    assert (
        "".join(each.text for each in answer.content if each.type == "text") == block.text.partition(stop)[0]
    )


def test_a_conversation_with_tools(claude: anthropic.Anthropic, server: Server) -> None:
    messages: list[Any] = [{"role": "user", "content": "The weather in Paris?"}]
    options: Any = {"model": server.model, "tools": [WEATHER], **WILD}
    answer = claude.messages.create(messages=messages, tool_choice={"type": "any"}, **options)
    exactly(answer)
    assert answer.stop_reason == "tool_use"
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert calls
    assert all(call.input.keys() == {"city", "days"} for call in calls)
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees", "is_error": False}
        for call in calls
    ]
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    schema = {"type": "object", "properties": {"city": CITY}, "required": ["city"]}
    form: Any = {"format": {"type": "json_schema", "schema": schema}}
    final = claude.messages.create(
        messages=messages, tool_choice={"type": "none"}, output_config=form, **options
    )
    (block,) = final.content
    assert block.type == "text"
    assert json.loads(block.text) in ({"city": "Paris"}, {"city": "Rome"})


def test_streamed_calls(claude: anthropic.Anthropic, server: Server) -> None:
    choice: Any = {"type": "tool", "name": "get_weather"}
    with claude.messages.stream(
        model=server.model, messages=HI, tools=[WEATHER], tool_choice=choice, **WILD
    ) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    exactly(final)
    (call,) = final.content
    assert call.type == "tool_use"
    assert call.input == snapshots[-1]
    assert call.input["city"] in CITY["enum"]


def test_images_and_documents_are_counted(claude: anthropic.Anthropic, server: Server) -> None:
    data = base64.b64encode(red_square()).decode()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    source = {"type": "text", "media_type": "text/plain", "data": "It is red."}
    blocks = [image, {"type": "document", "source": source}, {"type": "text", "text": "What is it?"}]
    prompt: Any = {
        "model": server.model,
        "messages": [{"role": "user", "content": blocks}],
        "tools": [WEATHER],
    }
    answer = claude.messages.create(**prompt, **GREEDY)
    exactly(answer)
    used = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert claude.messages.count_tokens(**prompt).input_tokens == used
    without: Any = {**prompt, "messages": [{"role": "user", "content": blocks[1:]}], "tools": []}
    assert claude.messages.count_tokens(**without).input_tokens < used - 250  # an image has 256 tokens


def test_a_request_of_a_coding_agent(claude: anthropic.Anthropic, server: Server) -> None:
    """As it is sent, but shorter: the tiny model's context has 4,096 tokens."""
    body = coding_agent_request(1, model=server.model, max_tokens=8)
    del body["stream"]
    temperature = {"temperature": body.pop("temperature")}
    betas = HEADERS["anthropic-beta"].split(",")
    with claude.beta.messages.stream(**body, betas=betas, extra_body=temperature) as stream:
        final = stream.get_final_message()
    assert final.stop_reason in ("end_turn", "max_tokens", "tool_use")
    count = {name: body[name] for name in ("model", "messages", "system", "tools", "thinking")}
    counted = claude.beta.messages.count_tokens(**count, betas=betas).input_tokens
    assert counted == final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0)


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        ({"model": "claude-opus-4-1"}, anthropic.NotFoundError, "claude-opus-4-1"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "max_tokens"),
        ({"messages": [{"role": "user", "content": "~" * 5000}]}, anthropic.BadRequestError, "too long"),
        ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, anthropic.BadRequestError, "type"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_exceptions(
    claude: anthropic.Anthropic, server: Server, body: Any, error: Any, says: str, stream: bool
) -> None:
    with pytest.raises(error, match=says) as caught:
        claude.messages.create(
            **{"model": server.model, "messages": HI, "max_tokens": 2, "stream": stream, **body}
        )
    assert caught.value.request_id
    assert caught.value.body["error"]["type"] in ("invalid_request_error", "not_found_error")
