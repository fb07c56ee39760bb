"""Log probabilities of chat completions and plain completions."""

from typing import Any

import httpx
from packages.gateway.tests import openai_document
from packages.gateway.tests.conftest import FakeEngine, chat, events, post

from gemma_wire import Alternative, Chunk, TokenLogprob, Usage

EMOJI = "🙂".encode()


def scored(text: str | bytes, logprob: float = -1.0, *top: Alternative) -> TokenLogprob:
    data = text.encode() if isinstance(text, str) else text
    token = data.decode(errors="replace")
    return TokenLogprob(token_id=1, token=token, utf8=tuple(data), logprob=logprob, top=top)


def other(text: str | bytes, logprob: float) -> Alternative:
    return Alternative.model_validate(scored(text, logprob).model_dump(exclude={"top"}))


SCRIPT = [
    Chunk(text="ä", logprobs=(scored("ä", -0.5, other("ä", -0.5), other("b", -1.5)),)),
    Chunk(text="🙂", logprobs=(scored(EMOJI[:2], -0.25, other(b"\xf1", -0.1)), scored(EMOJI[2:], 0.0))),
    Chunk(
        logprobs=(
            TokenLogprob(token_id=9, token="<end_of_turn>", utf8=(), logprob=-9999.0, top=(other("!", -2),)),
        )
    ),
    Chunk(finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=4)),
]


def entry(token: str, data: list[int] | None, logprob: float, *top: dict[str, Any]) -> dict[str, Any]:
    return {"token": token, "bytes": data, "logprob": logprob, "top_logprobs": list(top)}


def candidate(token: str, data: list[int], logprob: float) -> dict[str, Any]:
    return {"token": token, "bytes": data, "logprob": logprob}


CONTENT = [
    entry("ä", [195, 164], -0.5, candidate("ä", [195, 164], -0.5), candidate("b", [98], -1.5)),
    entry("\\xf0\\x9f", [240, 159], -0.25, candidate("\\xf1", [241], -0.1)),
    entry("\\x99\\x82", [153, 130], 0.0),
    entry("<end_of_turn>", None, -9999.0, candidate("!", [33], -2)),
]
ASK = {"logprobs": True, "top_logprobs": 2}


async def test_chat(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(SCRIPT)
    body = (await post(client, chat(**ASK))).json()
    openai_document.assert_valid(body, "CreateChatCompletionResponse")
    assert body["choices"][0]["logprobs"] == {"content": CONTENT, "refusal": None}


async def test_streamed_chat(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Every chunk has those of its own tokens; tokens without text are reported with the next chunk."""
    engine.script = list(SCRIPT)
    *chunks, _ = events(await post(client, chat(**ASK, stream=True)))
    for chunk in chunks:
        openai_document.assert_valid(chunk, "CreateChatCompletionStreamResponse")
    told = [chunk["choices"][0]["logprobs"]["content"] for chunk in chunks]
    assert told == [[], CONTENT[:1], CONTENT[1:3], CONTENT[3:]]


async def test_logprobs_are_absent_by_default(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(SCRIPT)
    assert (await post(client, chat())).json()["choices"][0]["logprobs"] is None


async def test_plain(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Offsets count characters; alternatives with incomplete UTF-8 are distinguished by their bytes."""
    engine.script = list(SCRIPT)
    body = {"model": "gemma3n", "prompt": "x", "logprobs": 2}
    answer = (await client.post("/v1/completions", json=body)).json()
    openai_document.assert_valid(answer, "CreateCompletionResponse")
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["ä", "bytes:\\xf0\\x9f", "bytes:\\x99\\x82", "<end_of_turn>"],
        "token_logprobs": [-0.5, -0.25, 0.0, -9999.0],
        "top_logprobs": [
            {"ä": -0.5, "b": -1.5},
            {"bytes:\\xf1": -0.1, "bytes:\\xf0\\x9f": -0.25},
            {"bytes:\\x99\\x82": 0.0},
            {"!": -2.0, "<end_of_turn>": -9999.0},
        ],
        "text_offset": [0, 1, 1, 2],
    }


async def test_plain_with_fewer_alternatives(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(SCRIPT)
    for asked, expected in ((1, {"ä": -0.5}), (0, {"ä": -0.5})):
        body = {"model": "gemma3n", "prompt": "x", "logprobs": asked}
        answer = (await client.post("/v1/completions", json=body)).json()
        assert answer["choices"][0]["logprobs"]["top_logprobs"][0] == expected
        assert engine.asked[-1].options.logprobs == asked
