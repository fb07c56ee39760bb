"""``/v1/responses``: what the engine is asked to do."""

from base64 import b64encode
from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, assert_error
from packages.gateway.tests.message_helpers import data_url, png
from packages.gateway.tests.response_helpers import ask, respond

from gemma_wire import AudioPart, ImagePart, JsonGrammar, Message, RegexGrammar, Request, TextPart, ToolCall

IMAGE, OTHER = png(), png(2, 2)
URL, OTHER_URL = data_url(IMAGE), data_url(OTHER)
WAVE = b"RIFF" + bytes(100)


async def asked(client: httpx.AsyncClient, engine: FakeEngine, items: Any, **rest: Any) -> Request:
    await respond(client, ask(items, **rest))
    return engine.asked[-1]


async def messages(client: httpx.AsyncClient, engine: FakeEngine, *items: Any) -> list[Message]:
    request = await asked(client, engine, list(items))
    assert request.messages is not None
    return list(request.messages)


def call(call_id: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def output(call_id: str, result: Any = "ok") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": result}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


async def test_a_string_is_a_message_of_the_user(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    request = await asked(client, engine, "Hi", instructions="Be brief.")
    assert request.messages == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hi"),
    )


async def test_messages_with_and_without_a_type(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]
    reply = {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "status": "completed",
        "content": [
            {"type": "output_text", "text": "c", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "d"},
        ],
    }
    developer = {"type": "message", "role": "developer", "content": "e"}
    assert await messages(client, engine, user(parts), reply, developer) == [
        Message(role="user", content=(TextPart(text="a"), TextPart(text="b"))),
        Message(role="assistant", content=(TextPart(text="c"), TextPart(text="d"))),
        Message(role="system", content="e"),
    ]


async def test_images_and_audio_keep_their_order(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    audio = {"type": "input_audio", "input_audio": {"data": b64encode(WAVE).decode(), "format": "wav"}}
    file = {"type": "input_file", "file_data": OTHER_URL, "filename": "a.png"}
    image = {"type": "input_image", "image_url": URL, "detail": "auto"}
    request = await asked(client, engine, [user([file, audio]), user([image])])
    assert request.images == (OTHER, IMAGE)
    assert request.audio == (WAVE,)
    assert request.messages is not None
    assert request.messages[0].content == (ImagePart(), AudioPart())


async def test_calls_and_results(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    said = {"role": "assistant", "content": "I look."}
    items = [user("Hi"), said, call("1"), call("2", "g"), output("1"), output("2", "no"), user("And?")]
    assert await messages(client, engine, *items) == [
        Message(role="user", content="Hi"),
        Message(
            role="assistant",
            content="I look.",
            tool_calls=(
                ToolCall(id="1", name="f", arguments="{}"),
                ToolCall(id="2", name="g", arguments="{}"),
            ),
        ),
        Message(role="tool", content="ok", tool_call_id="1"),
        Message(role="tool", content="no", tool_call_id="2"),
        Message(role="user", content="And?"),
    ]


async def test_results_follow_their_calls_wherever_they_are(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    image = {"type": "input_image", "image_url": URL}
    other = {"type": "input_image", "image_url": OTHER_URL}
    items = [call("1"), user([other]), output("1", [image]), call("2"), output("2")]
    request = await asked(client, engine, items)
    assert request.messages is not None
    assert [message.role for message in request.messages] == [
        "assistant",
        "tool",
        "user",
        "assistant",
        "tool",
    ]
    assert request.images == (IMAGE, OTHER)


async def test_items_that_the_model_does_not_see(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    assert await messages(client, engine, reasoning, search, user("Hi")) == [
        Message(role="user", content="Hi")
    ]


@pytest.mark.parametrize(
    ("items", "param", "code"),
    [
        ([], "input", "empty_array"),
        ([{"type": "reasoning", "id": "rs_1", "summary": []}], "input", "invalid_parameter_combination"),
        ([call("1")], "input[0]", "invalid_parameter_combination"),
        ([output("1")], "input[0].call_id", "invalid_parameter_combination"),
        ([call("1"), output("1"), output("1")], "input[2].call_id", "invalid_parameter_combination"),
        ([{"type": "item_reference", "id": "msg_1"}], "input[0]", "unsupported_parameter"),
        ([{"id": "msg_1"}], "input[0]", "unsupported_parameter"),
        ([{"type": "computer_call"}], "input[0].type", "unsupported_value"),
        ([{"type": "spell"}], "input[0].type", "invalid_value"),
        ([{"role": "wizard", "content": "x"}], "input[0].role", "invalid_value"),
        ([user([{"type": "input_image", "file_id": "f"}])], "input[0].content[0].file_id", None),
        ([user([{"type": "input_file"}])], "input[0].content[0].file_data", "invalid_parameter_combination"),
        ([user([{"type": "input_image", "image_url": "data:x"}])], "input[0].content[0].image_url", None),
        ([user([{"type": "video"}])], "input[0].content[0].type", "invalid_value"),
        ([user([{"type": "input_text", "text": ""}] * 5000)], "input", "array_above_max_length"),
        (5, "input", "invalid_type"),
    ],
)
async def test_a_wrong_input_is_refused(
    client: httpx.AsyncClient, items: Any, param: str, code: str | None
) -> None:
    response = await client.post("/v1/responses", json=ask(items))
    error = response.json()["error"]
    assert_error(response, 400, param, code or error["code"])


@pytest.mark.parametrize("name", ["previous_response_id", "background", "conversation", "prompt"])
async def test_what_needs_a_store_is_refused_by_name(client: httpx.AsyncClient, name: str) -> None:
    values: dict[str, Any] = {"background": True, "prompt": {"id": "pmpt_1"}}
    response = await client.post("/v1/responses", json=ask(**{name: values.get(name, "resp_1")}))
    assert_error(response, 400, name, "unsupported_parameter")


async def test_store_is_accepted_and_nothing_is_stored(client: httpx.AsyncClient) -> None:
    assert (await respond(client, ask(store=True)))["store"] is False


async def test_sampling(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    request = await asked(
        client, engine, "Hi", temperature=0.5, top_p=0.9, max_output_tokens=9, seed=1, top_k=3, stop=["x"]
    )
    assert (request.temperature, request.top_p, request.max_tokens) == (0.5, 0.9, 9)
    assert (request.options.seed, request.options.top_k, request.options.stop) == (1, 3, ("x",))


@pytest.mark.parametrize(
    ("text", "grammar"),
    [
        ({"format": {"type": "text"}, "verbosity": "low"}, None),
        ({"format": {"type": "json_object"}}, JsonGrammar(json_schema={"type": "object"})),
        (
            {"format": {"type": "json_schema", "name": "a", "schema": {"type": "null"}, "strict": True}},
            JsonGrammar(json_schema={"type": "null"}, strict=True),
        ),
    ],
)
async def test_formats(client: httpx.AsyncClient, engine: FakeEngine, text: Any, grammar: Any) -> None:
    response = await respond(client, ask(text=text))
    assert engine.asked[-1].options.grammar == grammar
    assert response["text"]["format"] == text["format"]


async def test_structured_outputs_is_the_alternative(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    request = await asked(client, engine, "Hi", structured_outputs={"regex": "a+"})
    assert request.options.grammar == RegexGrammar(pattern="a+")
    both = ask(structured_outputs={"regex": "a+"}, text={"format": {"type": "json_object"}})
    response = await client.post("/v1/responses", json=both)
    assert_error(response, 400, "structured_outputs", "invalid_parameter_combination")
