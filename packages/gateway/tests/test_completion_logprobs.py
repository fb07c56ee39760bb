"""Plain completions: ``best_of``, ``echo`` and log probabilities."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packages.gateway.tests.completion_helpers import (
    answered,
    ask,
    by_prompt,
    joined,
    post_completion,
    said,
    streamed,
)
from packages.gateway.tests.conftest import MODEL, FakeEngine, Step, events, prompt_scores

from gemma_gateway.completions.request import CompletionPrompt
from gemma_gateway.completions.response import CompletionResponseFormat, complete, stream
from gemma_gateway.generation import EngineCall
from gemma_gateway.response_base import ResponseBase
from gemma_gateway.schema.completions import CompletionRequest
from gemma_wire import Chunk, Request, TokenLogprob, Usage


def scored(text: str, logprob: float) -> TokenLogprob:
    token_id = sum(text.encode())
    return TokenLogprob(token_id=token_id, token=text, utf8=tuple(text.encode()), logprob=logprob)


def ranked(request: Request) -> list[Step]:
    """Three candidates; the second is the best by its mean, the last by its sum."""
    return [
        Chunk(text="low", index=0, logprobs=(scored("lo", -2), scored("w", -2)), finish_reason="stop"),
        Chunk(text="best", index=1, logprobs=(scored("be", -1), scored("st", -1)), finish_reason="length"),
        Chunk(text="mid", index=2, logprobs=(scored("mid", -1.5),), finish_reason="stop"),
        Chunk(index=2, usage=Usage(prompt_tokens=1, completion_tokens=5)),
    ]


@pytest.mark.parametrize(
    ("n", "expected"), [(1, [(0, "best", "length")]), (2, [(0, "best", "length"), (1, "mid", "stop")])]
)
async def test_best_of(
    client: httpx.AsyncClient, engine: FakeEngine, n: int, expected: list[tuple[int, str, str]]
) -> None:
    """The highest mean log probability wins; the tokens of every candidate are counted."""
    engine.answer = ranked
    answer = await answered(client, ask(n=n, best_of=3))
    assert (engine.asked[0].options.n, engine.asked[0].options.logprobs) == (3, 0)
    assert said(answer) == expected
    assert [choice["logprobs"] for choice in answer["choices"]] == [None] * n
    assert answer["usage"]["completion_tokens"] == 5


async def test_best_of_with_logprobs(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.answer = ranked
    answer = await answered(client, ask(["a", "b"], best_of=3, logprobs=0))
    assert said(answer) == [(0, "best", "length"), (1, "best", "length")]
    assert answer["choices"][1]["logprobs"]["token_logprobs"] == [-1, -1]
    assert answer["choices"][1]["logprobs"]["text_offset"] == [0, 2]


async def test_candidates_are_not_ranked_when_all_are_returned(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answer = by_prompt
    body = ask("a", n=2, best_of=2, stream=True)
    assert joined(await streamed(client, body)) == [(0, "a0", "stop"), (1, "a1", "length")]
    assert engine.asked[0].options.logprobs is None


def with_prompt_scores(*tokens: TokenLogprob) -> Callable[[Request], list[Step]]:
    """One choice or two; the first chunk has the prompt's log probabilities, without the first token."""

    def answer(request: Request) -> list[Step]:
        assert request.options.prompt_logprobs is not None
        other = Chunk(text="?", index=1, logprobs=(scored("?", -4),), finish_reason="stop")
        return [
            Chunk(text="!", prompt_logprobs=prompt_scores(*tokens), logprobs=(scored("!", -3),)),
            *([other] if request.options.n == 2 else []),
            Chunk(finish_reason="length", usage=Usage(prompt_tokens=3, completion_tokens=2)),
        ]

    return answer


@pytest.mark.parametrize("prompt", ["Hé", [2, 72, 233]])
@pytest.mark.parametrize("streaming", [False, True])
async def test_echo(client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, streaming: bool) -> None:
    """The model detokenizes the prompt; the BOS token is not part of the text."""
    text = "Hé"
    if streaming:
        chunks = await streamed(client, ask(prompt, echo=True, stream=True))
        assert chunks[0]["choices"][0]["text"] == text
        assert joined(chunks) == [(0, f"{text}Hello world", "stop")]
    else:
        assert said(await answered(client, ask(prompt, echo=True))) == [(0, f"{text}Hello world", "stop")]
    assert engine.asked[-1].options.prompt_logprobs is None


async def test_echo_with_logprobs(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The BOS token, which the model adds, is omitted.

    The first token that is reported has no log probability, as in OpenAI's responses.
    """
    engine.answer = with_prompt_scores(scored("H", -1), scored("é", -2))
    answer = (await post_completion(client, ask("Hé", echo=True, logprobs=1, n=2))).json()
    assert said(answer) == [(0, "Hé!", "length"), (1, "Hé?", "stop")]
    assert [choice["logprobs"] for choice in answer["choices"]] == [
        {
            "tokens": ["H", "é", token],
            "token_logprobs": [None, -2, logprob],
            "top_logprobs": [None, {"é": -2}, {token: logprob}],
            "text_offset": [0, 1, 2],
        }
        for token, logprob in (("!", -3), ("?", -4))
    ]


@pytest.mark.parametrize(
    ("prompt", "first", "tokens"), [([2, 72], "<bos>", ("H",)), ("<bos>H", "<bos>", ("H",)), ("H", "H", ())]
)
async def test_the_first_token_of_a_prompt_of_tokens(
    client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, first: str, tokens: tuple[str, ...]
) -> None:
    """It is reported without a log probability: null, which OpenAI sends but does not document."""
    engine.answer = with_prompt_scores(*(scored(token, -1) for token in tokens))
    choice = (await post_completion(client, ask(prompt, echo=True, logprobs=0))).json()["choices"][0]
    logprobs = choice["logprobs"]
    shown = [token for token in logprobs["tokens"] if prompt != [2, 72] or token != "<bos>"]
    assert choice["text"] == "".join(shown)
    assert logprobs["tokens"] == [first, *tokens, "!"]
    assert logprobs["token_logprobs"] == [None, *(-1 for _ in tokens), -3]
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["text_offset"][1] == (0 if prompt == [2, 72] else len(first))


async def test_streamed_echo_with_logprobs(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.answer = with_prompt_scores(scored("H", -1), scored("é", -2))
    body = ask("Hé", echo=True, logprobs=0, n=2)
    whole = (await post_completion(client, body)).json()
    *chunks, _ = events(await post_completion(client, body | {"stream": True}))
    for index, choice in enumerate(whole["choices"]):
        pieces = [one for chunk in chunks for one in chunk["choices"] if one["index"] == index]
        for name, column in choice["logprobs"].items():
            assert [item for one in pieces if one["logprobs"] for item in one["logprobs"][name]] == column


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_choice_that_ends_first_does_not_lose_the_prompt_fields(
    client: httpx.AsyncClient, engine: FakeEngine, streaming: bool
) -> None:
    """The engine's first chunk has the data about the prompt, whichever choice it belongs to."""
    scores = prompt_scores(scored("H", -1), scored("é", -2))
    engine.script = [
        Chunk(text="?", index=1, prompt_logprobs=scores, logprobs=(scored("?", -4),), finish_reason="stop"),
        Chunk(text="!", logprobs=(scored("!", -3),)),
        Chunk(finish_reason="length", usage=Usage(prompt_tokens=3, completion_tokens=2)),
    ]
    response = await post_completion(client, ask("Hé", echo=True, logprobs=0, n=2, stream=streaming))
    answers = events(response)[:-1] if streaming else [response.json()]
    for index, token in enumerate("!?"):
        told = [
            choice["logprobs"]
            for answer in answers
            for choice in answer["choices"]
            if choice["index"] == index and choice["logprobs"]
        ]
        assert [name for one in told for name in one["tokens"]] == ["H", "é", token]


TEXTS = st.lists(st.text(max_size=5), max_size=4)


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[int, Chunk]]:
    """Two choices of each of two prompts, interleaved; the token counts are last."""
    waiting = []
    for number, index in ((0, 0), (0, 1), (1, 0), (1, 1)):
        pieces = [Chunk(text=text, index=index, logprobs=(scored(text, -1.0),)) for text in draw(TEXTS)]
        waiting.append([(number, piece) for piece in (*pieces, Chunk(index=index, finish_reason="stop"))])
    script: list[tuple[int, Chunk]] = []
    while waiting := [pieces for pieces in waiting if pieces]:
        script.append(draw(st.sampled_from(waiting)).pop(0))
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    return [*script, (0, Chunk(usage=usage)), (1, Chunk(usage=usage))]


@given(script=scripts(), echo=st.booleans(), logprobs=st.sampled_from((None, 0)))
@settings(max_examples=40, deadline=None)
def test_the_complete_response_is_the_joined_stream(
    script: list[tuple[int, Chunk]], echo: bool, logprobs: int | None
) -> None:
    body = CompletionRequest(model="m", prompt=["a", "b"], n=2, echo=echo, logprobs=logprobs)
    prompts = [CompletionPrompt(EngineCall(Request(prompt=text)), text if echo else None) for text in "ab"]
    form = CompletionResponseFormat(ResponseBase("cmpl-1", 1, MODEL, "fp_1"), body, prompts)

    async def chunks() -> AsyncGenerator[tuple[int, Chunk], None]:
        for item in script:
            yield item

    async def both_ways() -> tuple[Any, list[Any]]:
        whole = await complete(form, chunks())
        return whole.model_dump(), [piece.model_dump() async for piece in stream(form, chunks())]

    whole, pieces = asyncio.run(both_ways())
    assert said(whole) == joined(pieces)
    for choice in whole["choices"]:
        told = [
            one["logprobs"] for piece in pieces for one in piece["choices"] if one["index"] == choice["index"]
        ]
        tokens = [token for one in told if one for token in one["tokens"]]
        assert tokens == (choice["logprobs"]["tokens"] if choice["logprobs"] else [])


@pytest.mark.parametrize("streaming", [False, True])
async def test_scoring_only_the_prompt(
    client: httpx.AsyncClient, engine: FakeEngine, streaming: bool
) -> None:
    """Scoring a prompt generates one token, which is neither returned nor counted."""
    engine.answer = with_prompt_scores(scored("H", -1), scored("é", -2))
    body = ask("Hé", echo=True, logprobs=0, max_tokens=0)
    if streaming:
        asked = body | {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, last, _ = events(await post_completion(client, asked))
        text, logprobs, usage = joined(chunks)[0], chunks[0]["choices"][0]["logprobs"], last["usage"]
    else:
        answer = (await post_completion(client, body)).json()
        text, logprobs, usage = said(answer)[0], answer["choices"][0]["logprobs"], answer["usage"]
    assert engine.asked[0].max_tokens == 1
    assert text == (0, "Hé", "length")
    assert (logprobs["tokens"], logprobs["token_logprobs"]) == (["H", "é"], [None, -2])
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 0, 3)
