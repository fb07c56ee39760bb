"""What a successful answer looks like, byte by byte where clients depend on it."""

import asyncio
import json
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from packages.gateway.tests.conftest import END, INFO, MODEL, FakeEngine, chat, post

from gemma_gateway.chat import Answer, fold, stream
from gemma_wire import Chunk, Request, Usage


def events(response: httpx.Response) -> list[Any]:
    """The payloads of a stream, parsed, ``[DONE]`` as it is."""
    assert response.text.endswith("\n\n")
    lines = response.text.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    payloads = [line.removeprefix("data: ") for line in lines]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


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
    ChatCompletion.model_validate(body, strict=True)
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > INFO.created
    assert body == {
        "object": "chat.completion",
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
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
        ChatCompletionChunk.model_validate(chunk, strict=True)
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["model"] == MODEL
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
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_service_tier_is_told_to_who_asks(client: httpx.AsyncClient) -> None:
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


@given(pieces=st.lists(st.text(max_size=20), max_size=10))
@settings(max_examples=40, deadline=None)
def test_joined_deltas_are_the_whole_answer(pieces: list[str]) -> None:
    """Whatever the text: line ends, quotes, characters beyond the first plane, control characters."""
    engine = FakeEngine()
    engine.script = [*(Chunk(text=piece) for piece in pieces), END]
    whole, chunks = asyncio.run(both_ways(engine))
    assert whole.choices[0].message.content == "".join(pieces)
    lines = [json.loads(chunk.model_dump_json(exclude_unset=True)) for chunk in chunks]
    assert "".join(line["choices"][0]["delta"].get("content", "") for line in lines) == "".join(pieces)
    assert sum(line["choices"][0]["finish_reason"] is not None for line in lines) == 1


async def both_ways(engine: FakeEngine) -> tuple[ChatCompletion, list[ChatCompletionChunk]]:
    answer, request = Answer(MODEL), Request(prompt="")
    whole = await fold(answer, engine.generate(request, ""))
    return whole, [chunk async for chunk in stream(answer, engine.generate(request, ""))]
