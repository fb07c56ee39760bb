"""Plain completions: all kinds of prompts, several prompts, and refused requests."""

import asyncio
from typing import Any

import httpx
import pytest
from packages.gateway.tests.completion_helpers import (
    answered,
    ask,
    by_prompt,
    joined,
    post_completion,
    prompt_of,
    said,
    streamed,
)
from packages.gateway.tests.conftest import END, INFO, MODEL, FakeEngine, Step, assert_error, until

import gemma_wire as wire
from gemma_gateway.response_base import system_fingerprint
from gemma_wire import Chunk, Options, Request


async def test_whole(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = await answered(client, ask())
    assert body.pop("id").startswith("cmpl-")
    assert body.pop("created")
    assert body == {
        "object": "text_completion",
        "model": MODEL,
        "system_fingerprint": system_fingerprint(INFO),
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
    task = asyncio.create_task(post_completion(client, ask(["a", "b", "c"], stream=streaming)))
    await until(lambda: engine.running == 3)
    gate.set()
    assert (await task).status_code == 200
    assert len(set(engine.request_ids)) == 3
    assert engine.running == 0


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_error_of_one_prompt_ends_all_generations(
    client: httpx.AsyncClient, engine: FakeEngine, streaming: bool
) -> None:
    """An error before the first event has its own status; ``param`` names the prompt."""

    def answer(request: Request) -> list[Step]:
        wrong = wire.ContextLengthExceeded("too long", "prompt")
        return [wrong] if request.prompt == "b" else [asyncio.Event()]

    engine.answer = answer
    response = await post_completion(client, ask(["a", "b", "c"], stream=streaming))
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
    assert_error(await post_completion(client, ask(prompt)), 400, param, error.code)


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
        ({"max_tokens": 0}, "max_tokens", "invalid_parameter_combination"),
        ({"logprobs": 6}, "logprobs", "integer_above_max_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"best_of": 21}, "best_of", "integer_above_max_value"),
        ({"best_of": 1, "n": 2}, "best_of", "invalid_parameter_combination"),
        ({"best_of": 2, "stream": True}, "best_of", "invalid_parameter_combination"),
        ({"min_tokens": 17}, "min_tokens", "invalid_parameter_combination"),
        ({"echo": "yes"}, "echo", "invalid_type"),
        ({"messages": [{}]}, "messages", "unknown_parameter"),
        ({"max_tokens": -2, "echo": True}, "max_tokens", "integer_below_min_value"),
        ({"model": "gpt-4o"}, "model", "model_not_found"),
    ],
)
async def test_refused(
    client: httpx.AsyncClient, engine: FakeEngine, rest: dict[str, Any], param: str, code: str
) -> None:
    status = 404 if code == "model_not_found" else 400
    assert param in assert_error(await post_completion(client, ask() | rest), status, param, code)
    assert engine.asked == []


async def test_a_prompt_is_needed(client: httpx.AsyncClient) -> None:
    response = await post_completion(client, {"model": "gemma3n"})
    assert_error(response, 400, "prompt", "missing_required_parameter")
