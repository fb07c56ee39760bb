"""vLLM's extensions: token ids, log probabilities, token counts, the end of the prompt."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests.completion_helpers import ask, post_completion
from packages.gateway.tests.conftest import FakeEngine, assert_error, chat, events, post, prompt_scores

from gemma_wire import (
    Alternative,
    Chunk,
    InvalidRequest,
    TokenLogprob,
    Usage,
)


def scored(token_id: int, text: str, logprob: float, *top: TokenLogprob) -> TokenLogprob:
    alternatives = tuple(Alternative.model_validate(one.model_dump(exclude={"top"})) for one in top)
    utf8 = tuple(text.encode())
    return TokenLogprob(token_id=token_id, token=text, utf8=utf8, logprob=logprob, top=alternatives)


def usage(tokens: int) -> Usage:
    return Usage(prompt_tokens=3, completion_tokens=tokens)


A, B, C = scored(10, "a", -1), scored(11, "b", -2), scored(12, "c", -3)
PROMPT = prompt_scores(scored(10, "a", -1, A, B), scored(12, "c", -3, A, B), ranks=(1, 7))
SCRIPT = [
    Chunk(
        text="a",
        prompt_token_ids=(2, 10, 12),
        prompt_logprobs=PROMPT,
        token_ids=(10,),
        logprobs=(scored(10, "a", -1, A, C),),
        choice_usage=usage(1),
    ),
    Chunk(index=1, text="b", token_ids=(11,), logprobs=(B,), choice_usage=usage(1)),
    Chunk(index=1, text="c", token_ids=(12, 1), logprobs=(C,), finish_reason="stop", choice_usage=usage(3)),
    Chunk(token_ids=(9,), finish_reason="stop", choice_usage=usage(2), usage=usage(5)),
]
TOLD = [
    None,
    {
        "10": {"logprob": -1, "rank": 1, "decoded_token": "a"},
        "11": {"logprob": -2, "rank": 2, "decoded_token": "b"},
    },
    {
        "12": {"logprob": -3, "rank": 7, "decoded_token": "c"},
        "10": {"logprob": -1, "rank": 1, "decoded_token": "a"},
        "11": {"logprob": -2, "rank": 2, "decoded_token": "b"},
    },
]


@pytest.fixture(autouse=True)
def script(engine: FakeEngine) -> None:
    engine.script = list(SCRIPT)


async def _chunks(client: httpx.AsyncClient, path: str, body: Any) -> list[Any]:
    response = await client.post(path, json=body | {"stream": True})
    assert response.status_code == 200, response.text
    *chunks, done = events(response)
    assert done == "[DONE]"
    return chunks


def _of(chunks: list[Any], index: int) -> list[Any]:
    return [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]


async def test_token_ids_of_a_chat(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = chat(n=2, return_token_ids=True)
    whole = (await post(client, body)).json()
    assert engine.asked[-1].options.return_token_ids
    assert whole["prompt_token_ids"] == [2, 10, 12]
    assert [choice["token_ids"] for choice in whole["choices"]] == [[10, 9], [11, 12, 1]]
    chunks = await _chunks(client, "/v1/chat/completions", body)
    assert [chunk.get("prompt_token_ids") for chunk in chunks] == [[2, 10, 12], *[None] * (len(chunks) - 1)]
    for index, ids in enumerate(([10, 9], [11, 12, 1])):
        assert [one for choice in _of(chunks, index) for one in choice["token_ids"]] == ids


async def test_token_ids_of_a_completion(client: httpx.AsyncClient) -> None:
    body = ask(n=2, return_token_ids=True)
    whole = (await post_completion(client, body)).json()
    assert [choice["token_ids"] for choice in whole["choices"]] == [[10, 9], [11, 12, 1]]
    assert [choice["prompt_token_ids"] for choice in whole["choices"]] == [[2, 10, 12]] * 2
    chunks = await _chunks(client, "/v1/completions", body)
    for index, ids in enumerate(([10, 9], [11, 12, 1])):
        first, *rest = _of(chunks, index)
        assert first["prompt_token_ids"] == [2, 10, 12]
        assert not any("prompt_token_ids" in choice for choice in rest)
        assert [one for choice in (first, *rest) for one in choice["token_ids"]] == ids


@pytest.mark.parametrize("stream", [False, True])
async def test_extra_fields_are_absent_by_default(client: httpx.AsyncClient, stream: bool) -> None:
    for path, body in (("/v1/chat/completions", chat()), ("/v1/completions", ask())):
        text = (await client.post(path, json=body | {"stream": stream, "n": 2})).text
        assert not any(name in text for name in ("token_ids", "prompt_logprobs", "token_id:"))


@pytest.mark.parametrize("many", [0, 1000])
@pytest.mark.parametrize("stream", [False, True])
async def test_prompt_logprobs(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, stream: bool, many: int
) -> None:
    """Many log probabilities are formatted in a thread."""
    monkeypatch.setattr("gemma_gateway.logprobs.LARGE", many)
    body = chat(prompt_logprobs=2, n=2)
    if stream:
        first, *rest = await _chunks(client, "/v1/chat/completions", body)
        assert not any("prompt_logprobs" in chunk for chunk in rest)
    else:
        first = (await post(client, body)).json()
    assert first["prompt_logprobs"] == TOLD
    assert engine.asked[-1].options.prompt_logprobs == 2


@pytest.mark.parametrize("many", [0, 1000])
@pytest.mark.parametrize("stream", [False, True])
async def test_prompt_logprobs_of_a_completion(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, stream: bool, many: int
) -> None:
    """Each choice has them; ``echo`` may need more or fewer alternatives than ``prompt_logprobs``."""
    monkeypatch.setattr("gemma_gateway.logprobs.LARGE", many)
    body = ask(prompt_logprobs=0, n=2, echo=True, logprobs=1)
    answers = (
        await _chunks(client, "/v1/completions", body)
        if stream
        else [(await post_completion(client, body)).json()]
    )
    for index in range(2):
        first, *rest = _of(answers, index)
        assert [entry and list(entry) for entry in first["prompt_logprobs"]] == [None, ["10"], ["12"]]
        assert not any("prompt_logprobs" in choice for choice in rest)
        assert first["logprobs"]["top_logprobs"][1] == {"a": -1, "c": -3}
    assert engine.asked[-1].options.prompt_logprobs == 1


async def test_the_limit_of_prompt_logprobs_names_the_parameter(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = [InvalidRequest("asks for too many", "options.prompt_logprobs")]
    for path, body in (("/v1/chat/completions", chat()), ("/v1/completions", ask())):
        response = await client.post(path, json=body | {"prompt_logprobs": 5})
        assert_error(response, 400, "prompt_logprobs", "invalid_value")
    response = await post_completion(client, ask(echo=True, logprobs=5))
    assert_error(response, 400, "echo", "invalid_value")


@pytest.mark.parametrize("limit", [5, 6])
async def test_log_probabilities_of_many_prompts_have_a_limit(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("gemma_gateway.completions.response.MAX_PROMPT_LOGPROBS", limit)
    engine.script = [
        Chunk(text="a", prompt_logprobs=prompt_scores(A, B, C), finish_reason="stop", usage=usage(1)),
    ]
    response = await post_completion(client, ask(["x", "y"], prompt_logprobs=0))
    if limit == 6:
        assert response.status_code == 200
    else:
        assert_error(response, 400, "prompt", "array_above_max_length")


async def test_tokens_named_by_their_ids(client: httpx.AsyncClient) -> None:
    body = chat(n=2, logprobs=True, top_logprobs=2, return_tokens_as_token_ids=True)
    content = (await post(client, body)).json()["choices"][0]["logprobs"]["content"]
    assert content[0]["token"] == "token_id:10"
    assert content[0]["bytes"] == [97]
    assert [one["token"] for one in content[0]["top_logprobs"]] == ["token_id:10", "token_id:12"]
    chunks = await _chunks(client, "/v1/chat/completions", body)
    told = [
        one["token"]
        for choice in _of(chunks, 0)
        for one in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert told == ["token_id:10"]


@pytest.mark.parametrize(
    ("prompt", "tokens", "offsets"),
    [
        ("ac", ["token_id:10", "token_id:12", "token_id:10"], [0, 1, 2]),
        ([2, 97, 99], ["token_id:2", "token_id:10", "token_id:12", "token_id:10"], [0, 0, 1, 2]),
    ],
)
async def test_completion_tokens_named_by_ids(
    client: httpx.AsyncClient, prompt: Any, tokens: list[str], offsets: list[int]
) -> None:
    body = ask(prompt, n=2, logprobs=2, return_tokens_as_token_ids=True, echo=True)
    told = (await post_completion(client, body)).json()["choices"][0]["logprobs"]
    assert (told["tokens"], told["text_offset"]) == (tokens, offsets)
    assert told["top_logprobs"][-1] == {"token_id:10": -1, "token_id:12": -3}
    assert "prompt_token_ids" not in (await post_completion(client, body)).text


async def test_log_probabilities_of_given_tokens(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = chat(n=2, logprobs=True, logprob_token_ids=[10, 12])
    content = (await post(client, body)).json()["choices"][0]["logprobs"]["content"]
    assert engine.asked[-1].options.logprob_token_ids == (10, 12)
    assert [one["token"] for one in content[0]["top_logprobs"]] == ["a", "c"]
    told = (await post_completion(client, ask(n=2, logprobs=0, logprob_token_ids=[10, 12]))).json()["choices"]
    assert told[0]["logprobs"]["top_logprobs"] == [{"a": -1, "c": -3}]
    for path, rest in (("/v1/chat/completions", chat(n=2)), ("/v1/completions", ask(n=2))):
        response = await client.post(path, json=rest | {"logprob_token_ids": [10]})
        assert_error(response, 400, "logprob_token_ids", "invalid_parameter_combination")
        too_many = await client.post(path, json=rest | {"logprob_token_ids": [10] * 129, "logprobs": 1})
        assert too_many.status_code == 400
        assert (await client.post(path, json=rest | {"logprob_token_ids": []})).status_code == 200


async def test_continuous_usage(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = await _chunks(client, "/v1/chat/completions", chat(n=2, stream_options=options))
    assert engine.asked[-1].options.continuous_usage_stats
    told = [
        (choice["index"], chunk["usage"]["completion_tokens"])
        for chunk in chunks
        for choice in chunk["choices"]
    ]
    assert told == [(0, 0), (1, 0), (0, 1), (1, 1), (1, 3), (1, 3), (0, 2)]
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {3}
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 5)
    chunks = await _chunks(client, "/v1/completions", ask(n=2, stream_options=options))
    assert all(chunk["usage"] for chunk in chunks)
    assert chunks[-1]["usage"]["completion_tokens"] == 5


async def test_continuous_usage_needs_include_usage(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """As in vLLM, it has no effect without ``include_usage``."""
    options = {"continuous_usage_stats": True}
    chunks = await _chunks(client, "/v1/chat/completions", chat(n=2, stream_options=options))
    assert not any("usage" in chunk for chunk in chunks)
    assert not engine.asked[-1].options.continuous_usage_stats
