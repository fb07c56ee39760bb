"""Chat responses, complete and streamed."""

import asyncio
import json
from typing import Any, Literal

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from packages.gateway.tests import openai_document
from packages.gateway.tests.conftest import END, INFO, MODEL, FakeEngine, chat, events, post

from gemma_gateway.chat.response import complete, stream
from gemma_gateway.chat.response_options import ChatResponseFormat
from gemma_gateway.response_base import ResponseBase, system_fingerprint
from gemma_gateway.sse import PAD
from gemma_wire import Chunk, Request, TokenLogprob, ToolCallDelta, Usage

USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 2,
    "total_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 0},
}


async def test_whole(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    response = await post(client, chat())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    openai_document.assert_valid(body, "CreateChatCompletionResponse")
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > INFO.created
    assert body == {
        "object": "chat.completion",
        "model": MODEL,
        "system_fingerprint": system_fingerprint(INFO),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
    assert engine.running == 0


async def test_stream(client: httpx.AsyncClient) -> None:
    response = await post(client, chat(stream=True))
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    *chunks, done = events(response)
    assert done == "[DONE]"
    for chunk in chunks:
        openai_document.assert_valid(chunk, "CreateChatCompletionStreamResponse")
        assert chunk["object"] == "chat.completion.chunk"
        assert (chunk["model"], chunk["system_fingerprint"]) == (MODEL, system_fingerprint(INFO))
        assert "usage" not in chunk
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        for delta, finish in [
            ({"role": "assistant", "content": "", "refusal": None}, None),
            ({"content": "Hello"}, None),
            ({"content": " world"}, None),
            ({}, "stop"),
        ]
    ]


async def test_stream_with_usage(client: httpx.AsyncClient) -> None:
    response = await post(client, chat(stream=True, stream_options={"include_usage": True}))
    *chunks, last, done = events(response)
    assert done == "[DONE]"
    for chunk in (*chunks, last):
        openai_document.assert_valid(chunk, "CreateChatCompletionStreamResponse")
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in chunks)
    assert (last["choices"], last["usage"]) == ([], USAGE)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prediction_reaches_the_engine_and_its_tokens_are_reported(
    client: httpx.AsyncClient, engine: FakeEngine, stream: bool
) -> None:
    usage = Usage(
        prompt_tokens=7,
        completion_tokens=2,
        accepted_prediction_tokens=5,
        rejected_prediction_tokens=3,
    )
    engine.script = [Chunk(text="Hello"), Chunk(finish_reason="stop", usage=usage)]
    for content in ("one two", [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]):
        body = chat(prediction={"type": "content", "content": content}, stream=stream)
        response = await post(client, body | ({"stream_options": {"include_usage": True}} if stream else {}))
        assert engine.asked[-1].options.prediction == "one two"
        last = events(response)[-2] if stream else response.json()
        details = {"accepted_prediction_tokens": 5, "rejected_prediction_tokens": 3}
        assert last["usage"] == USAGE | {"completion_tokens_details": details}


@pytest.mark.parametrize("asked", [{}, {"stream_options": {}}, {"stream_options": {"include_usage": True}}])
async def test_events_are_padded_by_default(client: httpx.AsyncClient, asked: Any) -> None:
    """As the specification says; the sizes of pieces of similar length are equal."""
    response = await post(client, chat(stream=True, **asked))
    *lines, done = response.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    assert {len(line.removeprefix("data: ").encode()) % PAD for line in lines} == {0}
    assert all("obfuscation" in event for event in events(response)[:-1])


async def test_padding_is_random_and_can_be_disabled(client: httpx.AsyncClient) -> None:
    padded = [events(await post(client, chat(stream=True)))[0]["obfuscation"] for _ in range(2)]
    assert padded[0] != padded[1]
    plain = await post(client, chat(stream=True, stream_options={"include_obfuscation": False}))
    assert "obfuscation" not in plain.text


async def test_interleaved_choices_are_separated(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [
        Chunk(text="a", index=1),
        Chunk(text="b"),
        Chunk(text="c", index=1, finish_reason="length"),
        Chunk(text="d", index=2),
        Chunk(text="e", finish_reason="stop"),
        Chunk(text="f", index=2, finish_reason="stop", usage=Usage(prompt_tokens=7, completion_tokens=6)),
    ]
    body = (await post(client, chat(n=3))).json()
    told = [(one["index"], one["message"]["content"], one["finish_reason"]) for one in body["choices"]]
    assert told == [(0, "be", "stop"), (1, "ac", "length"), (2, "df", "stop")]
    assert body["usage"]["total_tokens"] == 13
    asked = chat(n=3, stream=True, stream_options={"include_usage": True})
    *chunks, last, _ = events(await post(client, asked))
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [one["index"] for one in choices if "role" in one["delta"]] == [0, 1, 2]
    assert [one["delta"].get("content") for one in choices] == [
        *["", "", ""],
        *"ab",
        "c",
        None,
        *"de",
        None,
        "f",
        None,
    ]
    assert last["usage"] == body["usage"]


async def test_service_tier_is_reported_on_request(client: httpx.AsyncClient) -> None:
    whole = await post(client, chat(service_tier="auto"))
    assert whole.json()["service_tier"] == "default"
    *chunks, _ = events(await post(client, chat(service_tier="default", stream=True)))
    assert {chunk["service_tier"] for chunk in chunks} == {"default"}


async def test_last_chunk_may_carry_text(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    engine.script = [Chunk(text="all", finish_reason="length", usage=usage)]
    *chunks, _ = events(await post(client, chat(stream=True)))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "all", None]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "length"]
    whole = (await post(client, chat())).json()["choices"][0]
    assert (whole["message"]["content"], whole["finish_reason"]) == ("all", "length")


async def test_empty_answer(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [END]
    assert (await post(client, chat())).json()["choices"][0]["message"]["content"] == ""
    *chunks, _ = events(await post(client, chat(stream=True)))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", None]


PIECES = st.text(max_size=8)
TOKENS = st.builds(
    TokenLogprob, token_id=st.just(5), token=PIECES, utf8=st.just((65,)), logprob=st.just(-1.0)
)


@st.composite
def choices(draw: st.DrawFn, index: int) -> list[Chunk]:
    """One choice: text, then calls; the arguments of a call are in several chunks."""
    pieces = [Chunk(text=text) for text in draw(st.lists(PIECES, max_size=4))]
    for call in range(draw(st.integers(0, 2))):
        first = ToolCallDelta(index=call, id=f"call_{call}", name="f", arguments=draw(PIECES))
        rest = [ToolCallDelta(index=call, arguments=text) for text in draw(st.lists(PIECES, max_size=3))]
        pieces += [Chunk(tool_calls=(delta,)) for delta in (first, *rest)]
    pieces.append(Chunk(text=draw(PIECES), finish_reason=draw(st.sampled_from(("stop", "length")))))
    logprobs = st.lists(TOKENS, max_size=2).map(tuple)
    return [piece.model_copy(update={"index": index, "logprobs": draw(logprobs)}) for piece in pieces]


@st.composite
def scripts(draw: st.DrawFn) -> list[Chunk]:
    """Up to three choices, interleaved."""
    waiting = [draw(choices(index)) for index in range(draw(st.integers(1, 3)))]
    script: list[Chunk] = []
    while waiting := [pieces for pieces in waiting if pieces]:
        script.append(draw(st.sampled_from(waiting)).pop(0))
    usage = Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2)
    return [*script[:-1], script[-1].model_copy(update={"usage": usage})]


def joined(chunks: list[Any]) -> Any:
    """The stream joined, as a client does it: every field unchanged, the deltas concatenated."""
    told: dict[int, Any] = {}
    for chunk in chunks:
        for piece in chunk["choices"]:
            one = told.setdefault(piece["index"], {"message": {}, "logprobs": None, "finish_reason": None})
            join(one["message"], piece["delta"])
            one["finish_reason"] = piece["finish_reason"] or one["finish_reason"]
            if piece["logprobs"]:
                one["logprobs"] = one["logprobs"] or {"content": [], "refusal": None}
                one["logprobs"]["content"] += piece["logprobs"]["content"]
    choices = [{"index": index, **told[index]} for index in sorted(told)]
    return chunks[0] | {"object": "chat.completion", "choices": choices, "usage": chunks[-1]["usage"]}


def join(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for call in value:
                calls = message.setdefault("tool_calls", [])
                if "id" in call:
                    calls.append({"id": call["id"], "type": call["type"], "function": call["function"]})
                else:
                    calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
        elif name == "content" and message.get("content") is not None:
            message["content"] += value
        else:
            message[name] = value


@given(script=scripts(), empty=st.sampled_from(("", None)), logprobs=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_complete_response_is_the_joined_stream(
    script: list[Chunk], empty: Literal[""] | None, logprobs: bool
) -> None:
    """For any output: several choices, tool calls, any characters."""
    n = max(chunk.index for chunk in script) + 1
    base = ResponseBase("chatcmpl-1", 1, MODEL, "fp_1")
    form = ChatResponseFormat(base, n, empty, logprobs, include_usage=True)
    engine = FakeEngine()
    engine.script = list(script)
    complete_response, chunks = asyncio.run(both_ways(engine, form))
    assert joined(chunks) == complete_response
    openai_document.assert_valid(complete_response, "CreateChatCompletionResponse")
    for chunk in chunks:
        openai_document.assert_valid(chunk, "CreateChatCompletionStreamResponse")


async def both_ways(engine: FakeEngine, form: ChatResponseFormat) -> tuple[Any, list[Any]]:
    request = Request(prompt="")
    whole = await complete(form, engine.generate(request, ""))
    chunks = [chunk async for chunk in stream(form, engine.generate(request, ""))]
    ChatCompletion.model_validate(whole.model_dump(), strict=True)
    return whole.model_dump(mode="json", exclude_unset=True), [
        json.loads(chunk) if isinstance(chunk, bytes) else chunk.model_dump(mode="json", exclude_unset=True)
        for chunk in chunks
    ]


@given(text=st.text(min_size=1), index=st.integers(0, 3), usage=st.booleans(), tier=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_filled_template_is_the_json_of_the_chunk(text: str, index: int, usage: bool, tier: bool) -> None:
    base = ResponseBase("chatcmpl-1", 1, MODEL, "fp_1")
    form = ChatResponseFormat(base, 4, include_usage=usage, service_tier="default" if tier else None)
    engine = FakeEngine()
    engine.script = [Chunk(text="a"), Chunk(text=text, index=index), Chunk(text=text, index=index), END]

    async def chunks() -> list[Any]:
        return [chunk async for chunk in stream(form, engine.generate(Request(prompt=""), ""))]

    sent = [chunk for chunk in asyncio.run(chunks()) if isinstance(chunk, bytes)]
    delta = {
        "choices": [{"delta": {"content": text}, "finish_reason": None, "index": index, "logprobs": None}]
    }
    usage_field = {"usage": None} if usage else {}
    expected = {**form.common_fields, "object": "chat.completion.chunk", **delta, **usage_field}
    assert len(sent) == 3
    for chunk in sent[1:]:
        assert json.loads(chunk) == expected
        assert (
            chunk == ChatCompletionChunk.model_validate(expected).model_dump_json(exclude_unset=True).encode()
        )
