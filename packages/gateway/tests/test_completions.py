"""Plain completions: prompts of every kind, several at once, echoes, and the best of several."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packages.gateway.tests import official
from packages.gateway.tests.conftest import END, INFO, MODEL, FakeEngine, Step, assert_error, events, until

import gemma_wire as wire
from gemma_gateway.answers import Head, fingerprint
from gemma_gateway.asking import Question
from gemma_gateway.completions.answer import Answer, fold, stream
from gemma_gateway.completions.question import Prompt
from gemma_gateway.schema.completions import CompletionRequest
from gemma_wire import Chunk, Options, Request, TokenLogprob, Usage


def ask(prompt: Any = "Hi", **rest: Any) -> dict[str, Any]:
    return {"model": "gemma3n", "prompt": prompt, **rest}


async def complete(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.post("/v1/completions", json=body)


async def answered(client: httpx.AsyncClient, body: Any) -> Any:
    response = await complete(client, body)
    assert response.status_code == 200, response.text
    official.assert_valid(response.json(), "CreateCompletionResponse")
    return response.json()


async def streamed(client: httpx.AsyncClient, body: Any) -> list[Any]:
    """The events but ``[DONE]``: what the document says, but that a choice has no end until it ends."""
    *chunks, done = events(await complete(client, body))
    assert done == "[DONE]"
    for chunk in chunks:
        ended = [choice | {"finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
        used = (
            {}
            if chunk.get("usage")
            else {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}
        )
        official.assert_valid(chunk | {"choices": ended} | used, "CreateCompletionResponse")
    return chunks


def said(answer: Any) -> list[tuple[int, str, str]]:
    return [(one["index"], one["text"], one["finish_reason"]) for one in answer["choices"]]


def joined(chunks: list[Any]) -> list[tuple[int, str, str]]:
    """What a client makes of a stream."""
    texts: dict[int, str] = {}
    finish: dict[int, str] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        if choice["finish_reason"]:
            finish[choice["index"]] = choice["finish_reason"]
    return [(index, texts[index], finish[index]) for index in sorted(texts)]


async def test_whole(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = await answered(client, ask())
    assert body.pop("id").startswith("cmpl-")
    assert body.pop("created")
    assert body == {
        "object": "text_completion",
        "model": MODEL,
        "system_fingerprint": fingerprint(INFO),
        "choices": [{"index": 0, "text": "Hello world", "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }
    assert engine.asked == [Request(prompt="Hi", max_tokens=16, stream=True)]
    assert engine.running == 0


async def test_stream(client: httpx.AsyncClient) -> None:
    chunks = await streamed(client, ask(stream=True))
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}]
        for text, finish in (("Hello", None), (" world", None), ("", "stop"))
    ]
    assert all("usage" not in chunk and chunk["object"] == "text_completion" for chunk in chunks)
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1


async def test_stream_with_usage_and_without_padding(client: httpx.AsyncClient) -> None:
    asked = ask(["a", "b"], stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    *chunks, last = await streamed(client, asked)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 18)
    assert "obfuscation" not in last


async def test_parameters_reach_the_model(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await answered(
        client,
        ask(
            max_tokens=3,
            temperature=0.5,
            top_p=1,
            seed=1,
            stop="x",
            logit_bias={"5": 1},
            frequency_penalty=1,
            presence_penalty=-1,
            min_tokens=2,
            logprobs=5,
            user="u",
            suffix=None,
        ),
    )
    assert engine.asked == [
        Request(
            prompt="Hi",
            max_tokens=3,
            temperature=0.5,
            top_p=1,
            stream=True,
            options=Options(
                seed=1,
                stop=("x",),
                logit_bias={5: 1},
                frequency_penalty=1,
                presence_penalty=-1,
                min_tokens=2,
                logprobs=5,
            ),
        )
    ]


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("", [""]),
        (None, [""]),
        ("<start_of_turn>user", ["<start_of_turn>user"]),
        (["a"], ["a"]),
        (["a", ""], ["a", ""]),
        ([5, 6], [(5, 6)]),
        ([[5, 6], [7]], [(5, 6), (7,)]),
    ],
)
async def test_kinds_of_prompts(
    client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, asked: list[str | tuple[int, ...]]
) -> None:
    body = await answered(client, ask(prompt))
    assert [prompt_of(request) for request in engine.asked] == asked
    assert said(body) == [(index, "Hello world", "stop") for index in range(len(asked))]


def prompt_of(request: Request) -> str | tuple[int, ...] | None:
    return request.prompt if request.options.prompt_token_ids is None else request.options.prompt_token_ids


def by_prompt(request: Request) -> list[Step]:
    """Two choices of each prompt; the second comes first."""
    usage = Usage(prompt_tokens=len(request.prompt or ""), completion_tokens=4, cached_tokens=1)
    return [
        Chunk(text=f"{request.prompt}1", index=1, finish_reason="length"),
        Chunk(text=f"{request.prompt}0"),
        Chunk(finish_reason="stop", usage=usage),
    ]


@pytest.mark.parametrize("streaming", [False, True])
async def test_choices_are_counted_prompt_by_prompt(
    client: httpx.AsyncClient, engine: FakeEngine, streaming: bool
) -> None:
    engine.answer = by_prompt
    expected = [(0, "a0", "stop"), (1, "a1", "length"), (2, "bc0", "stop"), (3, "bc1", "length")]
    body = ask(["a", "bc"], n=2)
    if streaming:
        assert joined(await streamed(client, body | {"stream": True})) == expected
    else:
        answer = await answered(client, body)
        assert said(answer) == expected
        details = {"prompt_tokens_details": {"cached_tokens": 2}}
        counted = {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}
        assert answer["usage"] == counted | details


@pytest.mark.parametrize("streaming", [False, True])
async def test_prompts_run_at_the_same_time(
    client: httpx.AsyncClient, engine: FakeEngine, streaming: bool
) -> None:
    gate = asyncio.Event()
    engine.script = [gate, Chunk(text="x"), END]
    task = asyncio.create_task(complete(client, ask(["a", "b", "c"], stream=streaming)))
    await until(lambda: engine.running == 3)
    gate.set()
    assert (await task).status_code == 200
    assert len(set(engine.request_ids)) == 3
    assert engine.running == 0


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_error_of_one_prompt_ends_all(
    client: httpx.AsyncClient, engine: FakeEngine, streaming: bool
) -> None:
    """Before anything was said it has its own status; the culprit is the prompt that it is about."""

    def answer(request: Request) -> list[Step]:
        wrong = wire.ContextLengthExceeded("too long", "prompt")
        return [wrong] if request.prompt == "b" else [asyncio.Event()]

    engine.answer = answer
    response = await complete(client, ask(["a", "b", "c"], stream=streaming))
    assert_error(response, 400, "prompt[1]", "context_length_exceeded")
    assert engine.running == 0


@pytest.mark.parametrize(
    ("prompt", "error", "param"),
    [
        ("x", wire.ContextLengthExceeded("9 > 5", "prompt"), "prompt"),
        ([5], wire.InvalidRequest("no such token", "options.prompt_token_ids[0]"), "prompt[0]"),
        ([[5], [6]], wire.InvalidRequest("no such token", "options.prompt_token_ids[0]"), "prompt[0][0]"),
        ("<image_soft_token>", wire.InvalidRequest("0 given, places for 1", "images"), "prompt"),
        ("x", wire.InvalidRequest("too many", "max_tokens"), "max_tokens"),
        ("x", wire.InvalidRequest("too many", "options.n"), "n"),
    ],
)
async def test_the_models_errors(
    client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, error: wire.WireError, param: str
) -> None:
    engine.script = [error]
    assert_error(await complete(client, ask(prompt)), 400, param, error.code)


def scored(text: str, logprob: float) -> TokenLogprob:
    return TokenLogprob(token_id=5, token=text, utf8=tuple(text.encode()), logprob=logprob)


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
    """The highest mean log probability of a token wins; every candidate counts as used."""
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


async def test_as_many_as_are_told_are_not_ranked(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.answer = by_prompt
    body = ask("a", n=2, best_of=2, stream=True)
    assert joined(await streamed(client, body)) == [(0, "a0", "stop"), (1, "a1", "length")]
    assert engine.asked[0].options.logprobs is None


def with_prompt_scores(*tokens: TokenLogprob) -> Callable[[Request], list[Step]]:
    """One choice or two; the prompt's scores, the first token's missing, in the first chunk."""

    def answer(request: Request) -> list[Step]:
        assert request.options.prompt_logprobs
        other = Chunk(text="?", index=1, logprobs=(scored("?", -4),), finish_reason="stop")
        return [
            Chunk(text="!", prompt_logprobs=(None, *tokens), logprobs=(scored("!", -3),)),
            *([other] if request.options.n == 2 else []),
            Chunk(finish_reason="length", usage=Usage(prompt_tokens=3, completion_tokens=2)),
        ]

    return answer


@pytest.mark.parametrize("prompt", ["Hé", [2, 72, 233]])
@pytest.mark.parametrize("streaming", [False, True])
async def test_echo(client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, streaming: bool) -> None:
    """Of tokens the model tells the text."""
    text = prompt if isinstance(prompt, str) else "<bos>Hé"
    if streaming:
        chunks = await streamed(client, ask(prompt, echo=True, stream=True))
        assert chunks[0]["choices"][0]["text"] == text
        assert joined(chunks) == [(0, f"{text}Hello world", "stop")]
    else:
        assert said(await answered(client, ask(prompt, echo=True))) == [(0, f"{text}Hello world", "stop")]
    assert not engine.asked[-1].options.prompt_logprobs


async def test_echo_with_logprobs(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The token that the model begins every text with is not the client's, and is not told."""
    engine.answer = with_prompt_scores(scored("H", -1), scored("é", -2))
    answer = await answered(client, ask("Hé", echo=True, logprobs=1, n=2))
    assert said(answer) == [(0, "Hé!", "length"), (1, "Hé?", "stop")]
    assert [choice["logprobs"] for choice in answer["choices"]] == [
        {
            "tokens": ["H", "é", token],
            "token_logprobs": [-1, -2, logprob],
            "top_logprobs": [{"H": -1}, {"é": -2}, {token: logprob}],
            "text_offset": [0, 1, 2],
        }
        for token, logprob in (("!", -3), ("?", -4))
    ]


@pytest.mark.parametrize(
    ("prompt", "first", "tokens"), [([2, 72], "<bos>", ("H",)), ("<bos>H", "<bos>", ("H",)), ("H", "H", ())]
)
async def test_a_first_token_of_the_clients_own(
    client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, first: str, tokens: tuple[str, ...]
) -> None:
    """It is told, and it has no probability: null, as OpenAI says it, which its document does not know."""
    engine.answer = with_prompt_scores(*(scored(token, -1) for token in tokens))
    choice = (await complete(client, ask(prompt, echo=True, logprobs=0))).json()["choices"][0]
    logprobs = choice["logprobs"]
    assert choice["text"] == "".join(logprobs["tokens"])
    assert logprobs["tokens"] == [first, *tokens, "!"]
    assert logprobs["token_logprobs"] == [None, *(-1 for _ in tokens), -3]
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["text_offset"][1] == len(first)


async def test_streamed_echo_with_logprobs(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.answer = with_prompt_scores(scored("H", -1), scored("é", -2))
    body = ask("Hé", echo=True, logprobs=0, n=2)
    whole = await answered(client, body)
    chunks = await streamed(client, body | {"stream": True})
    for index, choice in enumerate(whole["choices"]):
        pieces = [one for chunk in chunks for one in chunk["choices"] if one["index"] == index]
        for name, column in choice["logprobs"].items():
            assert [item for one in pieces if one["logprobs"] for item in one["logprobs"][name]] == column


TEXTS = st.lists(st.text(max_size=5), max_size=4)


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[int, Chunk]]:
    """Two choices of each of two prompts, mixed as they come; the counts come last."""
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
def test_a_stream_joined_is_the_whole_answer(
    script: list[tuple[int, Chunk]], echo: bool, logprobs: int | None
) -> None:
    body = CompletionRequest(model="m", prompt=["a", "b"], n=2, echo=echo, logprobs=logprobs)
    prompts = [Prompt(Question(Request(prompt=text)), text if echo else None) for text in "ab"]
    answer = Answer(Head("cmpl-1", 1, MODEL, "fp_1"), body, prompts)

    async def chunks() -> AsyncGenerator[tuple[int, Chunk], None]:
        for item in script:
            yield item

    async def both_ways() -> tuple[Any, list[Any]]:
        whole = await fold(answer, chunks())
        return whole.model_dump(), [piece.model_dump() async for piece in stream(answer, chunks())]

    whole, pieces = asyncio.run(both_ways())
    assert said(whole) == joined(pieces)
    for choice in whole["choices"]:
        told = [
            one["logprobs"] for piece in pieces for one in piece["choices"] if one["index"] == choice["index"]
        ]
        tokens = [token for one in told if one for token in one["tokens"]]
        assert tokens == (choice["logprobs"]["tokens"] if choice["logprobs"] else [])


@pytest.mark.parametrize("streaming", [False, True])
async def test_only_the_prompt(client: httpx.AsyncClient, engine: FakeEngine, streaming: bool) -> None:
    """To score a prompt the model makes a token, which is not told and not counted."""
    engine.answer = with_prompt_scores(scored("H", -1), scored("é", -2))
    body = ask("Hé", echo=True, logprobs=0, max_tokens=0)
    if streaming:
        asked = body | {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, last = await streamed(client, asked)
        text, logprobs, usage = joined(chunks)[0], chunks[0]["choices"][0]["logprobs"], last["usage"]
    else:
        answer = await answered(client, body)
        text, logprobs, usage = said(answer)[0], answer["choices"][0]["logprobs"], answer["usage"]
    assert engine.asked[0].max_tokens == 1
    assert text == (0, "Hé", "length")
    assert (logprobs["tokens"], logprobs["token_logprobs"]) == (["H", "é"], [-1, -2])
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 0, 3)


@pytest.mark.parametrize(
    ("rest", "param", "code"),
    [
        ({"prompt": []}, "prompt", "empty_array"),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"prompt": {}}, "prompt", "invalid_type"),
        ({"prompt": ["a", 5]}, "prompt[1]", "invalid_type"),
        ({"prompt": [5, "a"]}, "prompt[1]", "invalid_type"),
        ({"prompt": [[5], []]}, "prompt[1]", "empty_array"),
        ({"prompt": [[5], ["a"]]}, "prompt[1][0]", "invalid_type"),
        ({"prompt": [-1]}, "prompt[0]", "integer_below_min_value"),
        ({"prompt": [True]}, "prompt[0]", "invalid_type"),
        ({"prompt": [None]}, "prompt[0]", "invalid_type"),
        ({"prompt": ["a"] * 129}, "prompt", "array_above_max_length"),
        ({"suffix": "x"}, "suffix", "unsupported_parameter"),
        ({"suffix": ""}, "suffix", "unsupported_parameter"),
        ({"max_tokens": 0}, "max_tokens", "invalid_parameter_combination"),
        ({"max_tokens": -1, "echo": True}, "max_tokens", "integer_below_min_value"),
        ({"logprobs": 6}, "logprobs", "integer_above_max_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"best_of": 21}, "best_of", "integer_above_max_value"),
        ({"best_of": 1, "n": 2}, "best_of", "invalid_parameter_combination"),
        ({"best_of": 2, "stream": True}, "best_of", "invalid_parameter_combination"),
        ({"min_tokens": 17}, "min_tokens", "invalid_parameter_combination"),
        ({"echo": "yes"}, "echo", "invalid_type"),
        ({"stream_options": {}}, "stream_options", "invalid_parameter_combination"),
        ({"messages": []}, "messages", "unknown_parameter"),
        ({"model": "gpt-4o"}, "model", "model_not_found"),
    ],
)
async def test_refused(
    client: httpx.AsyncClient, engine: FakeEngine, rest: dict[str, Any], param: str, code: str
) -> None:
    status = 404 if code == "model_not_found" else 400
    assert param in assert_error(await complete(client, ask() | rest), status, param, code)
    assert engine.asked == []


async def test_a_prompt_is_needed(client: httpx.AsyncClient) -> None:
    response = await complete(client, {"model": "gemma3n"})
    assert_error(response, 400, "prompt", "missing_required_parameter")
