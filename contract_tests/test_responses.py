"""Complete and streamed responses, through the OpenAI SDK."""

import asyncio
import itertools
import time
from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletionChunk
from PIL import Image

from image_files import data_uri
from server import MODEL
from stack import Stack

STORY = [{"role": "user", "content": "Tell me a story"}]


def _ask(picture: str) -> Any:
    parts = [
        {"type": "text", "text": "What do you see?"},
        {"type": "image_url", "image_url": {"url": picture}},
    ]
    return [{"role": "user", "content": parts}]


def _counts(usage: Any) -> tuple[int, int, int]:
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


def _merge(chunks: list[ChatCompletionChunk]) -> tuple[str, list[str]]:
    """The joined text and every finish_reason."""
    choices = [choice for chunk in chunks for choice in chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    return text, [choice.finish_reason for choice in choices if choice.finish_reason]


def test_a_complete_response(client: Any) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=STORY, max_tokens=10)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_joined_deltas_equal_the_complete_response(client: Any) -> None:
    options = {"model": MODEL, "messages": STORY, "max_tokens": 40, "temperature": 0}
    whole = client.chat.completions.create(**options)
    with client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    text, reasons = _merge(chunks)
    assert text == whole.choices[0].message.content
    assert reasons == [whole.choices[0].finish_reason]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert _counts(chunks[-1].usage) == _counts(whole.usage)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_first_chunk_arrives_long_before_the_last_token(client: Any) -> None:
    start = time.monotonic()
    options = {"model": MODEL, "messages": STORY, "max_tokens": 1500, "extra_body": {"ignore_eos": True}}
    with client.chat.completions.create(**options, stream=True) as stream:
        times = [time.monotonic() - start for chunk in stream if chunk.choices[0].delta.content]
    assert len(times) > 750, "a response for each token, give or take those that are half a character"
    assert times[0] < times[-1] / 2
    assert max(b - a for a, b in itertools.pairwise(times)) < (times[-1] - times[0]) / 2, (
        "no burst at the end"
    )


def test_max_tokens_gives_the_finish_reason_length(client: Any) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=STORY, max_tokens=7, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 7


def test_max_completion_tokens_is_the_same(client: Any) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=STORY, max_completion_tokens=5, extra_body={"ignore_eos": True}
    )
    assert answer.usage.completion_tokens == 5


def test_a_stop_string_ends_the_text_and_is_not_in_it(client: Any) -> None:
    options = {"model": MODEL, "messages": STORY, "max_tokens": 60, "temperature": 0}
    whole = (
        client.chat.completions.create(**options, extra_body={"ignore_eos": True}).choices[0].message.content
    )
    stop = whole[20:23]
    answer = client.chat.completions.create(**options, stop=stop, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.usage.completion_tokens < 60


def test_an_end_of_turn_gives_the_finish_reason_stop(client: Any) -> None:
    for seed in range(20):
        answer = client.chat.completions.create(
            model=MODEL, messages=STORY, max_tokens=2000, temperature=2, top_p=1, seed=seed,
            extra_body={"top_k": 0},
        )  # fmt: skip
        if answer.choices[0].finish_reason == "stop":
            assert answer.usage.completion_tokens < 2000
            return
    pytest.fail("no answer ended by itself")


def test_a_seed_gives_the_same_text_again(client: Any) -> None:
    def text(seed: int) -> Any:
        options = {"model": MODEL, "messages": STORY, "max_tokens": 20, "temperature": 1.5}
        return client.chat.completions.create(**options, seed=seed).choices[0].message.content

    assert text(7) == text(7) != text(8)


def test_an_image_changes_the_response(client: Any, red_image: str, pixel: str) -> None:
    blue = data_uri(Image.effect_noise((300, 200), 90), "JPEG")
    texts = {
        client.chat.completions.create(model=MODEL, messages=_ask(url), max_tokens=12, temperature=0)
        .choices[0].message.content
        for url in (red_image, blue, pixel)
    }  # fmt: skip
    assert len(texts) == 3


def test_a_conversation_with_a_system_turn(client: Any) -> None:
    roles = ("system", "user", "assistant", "user")
    messages = [{"role": role, "content": f"{role} speaks"} for role in roles]
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=5)
    assert answer.usage.prompt_tokens > 20


def test_a_repeated_prompt_is_cached(client: Any) -> None:
    messages = [{"role": "user", "content": "Once more, and not for the last time. " * 4}]
    options = {"model": MODEL, "max_tokens": 4, "temperature": 0}
    first = client.chat.completions.create(messages=messages, **options)
    again = client.chat.completions.create(messages=messages, **options)
    assert again.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 16
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    assert again.choices[0].message.content == first.choices[0].message.content


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_typed_control_tokens_are_text(client: Any, role: str) -> None:
    def prompt_tokens(content: str) -> Any:
        messages = [{"role": role, "content": content}, {"role": "user", "content": "x"}]
        return client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=1
        ).usage.prompt_tokens

    typed = "<image_soft_token><end_of_turn><start_of_turn>model"
    extra = prompt_tokens("x" + typed) - prompt_tokens("x")
    assert extra > 12, "each control token is spelled out in several tokens"


async def test_the_async_client_does_the_same(async_client: Any, red_image: str) -> None:
    options = {"model": MODEL, "messages": _ask(red_image), "max_tokens": 15, "temperature": 0}
    whole = await async_client.chat.completions.create(**options)
    async with await async_client.chat.completions.create(**options, stream=True) as stream:
        chunks = [chunk async for chunk in stream]
    assert _merge(chunks)[0] == whole.choices[0].message.content


async def test_sixteen_clients_get_their_own_responses(async_client: Any, red_image: str) -> None:
    def question(i: int) -> Any:
        return _ask(red_image) if i % 4 == 0 else [{"role": "user", "content": f"Question {i} " * (i + 1)}]

    async def ask(i: int) -> str:
        messages = [{"role": "system", "content": f"You are number {i}."}, *question(i)]
        options = {"model": MODEL, "messages": messages, "max_tokens": 24, "temperature": 0}
        async with await async_client.chat.completions.create(**options, stream=True) as stream:
            text, reasons = _merge([chunk async for chunk in stream])
        assert len(reasons) == 1
        return text

    together = await asyncio.gather(*(ask(i) for i in range(16)))
    alone = [await ask(i) for i in range(16)]
    assert together == alone
    assert len(set(alone)) == 16


def test_models(client: Any) -> None:
    names = [model.id for model in client.models.list()]
    assert MODEL in names
    for name in names:
        assert client.models.retrieve(name).id == name


def test_health(stack: Stack) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        assert httpx.get(stack.url + path, timeout=10).status_code == 200
    body = httpx.get(f"{stack.url}/health", timeout=10).json()
    assert body["device"].startswith(("cpu", "cuda"))
