"""OpenAI's SDK, sync and async, against a real port."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from packages.gateway.tests.conftest import END, MODEL, FakeEngine
from packages.gateway.tests.message_helpers import data_url, png
from pydantic import BaseModel

import gemma_wire as wire
from gemma_wire import Chunk

HI: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]


class Weather(BaseModel):
    """Of a city."""

    city: str


@pytest.fixture
async def sdk(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_whole(sdk: AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="gemma3n", messages=[{"role": "user", "content": "Hi"}])
    assert answer.choices[0].message.content == "Hello world"
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.total_tokens == 9


async def test_stream(sdk: AsyncOpenAI) -> None:
    chunks = [
        chunk
        async for chunk in await sdk.chat.completions.create(
            model="gemma3n",
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    ]
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "Hello world"
    assert chunks[-1].usage is not None


async def test_stream_helper(sdk: AsyncOpenAI) -> None:
    """The SDK's own accumulation agrees with the complete response."""
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
    async with sdk.chat.completions.stream(model="gemma3n", messages=messages) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "Hello world"
    assert final.choices[0].finish_reason == "stop"


async def test_picture_and_a_second_turn(sdk: AsyncOpenAI, engine: FakeEngine) -> None:
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": data_url(png()), "detail": "auto"}},
            ],
        }
    ]
    answer = await sdk.chat.completions.create(model="gemma3n", messages=messages)
    messages.append(answer.choices[0].message)  # type: ignore[arg-type]
    messages.append({"role": "user", "content": "And?"})
    await sdk.chat.completions.create(model="gemma3n", messages=messages)
    assert engine.asked[1].images == (png(),)
    assert engine.asked[1].messages is not None
    assert [message.role for message in engine.asked[1].messages] == ["user", "assistant", "user"]


CALL = [
    Chunk(tool_calls=(wire.ToolCallDelta(index=0, id="call_1", name="weather", arguments='{"city":'),)),
    Chunk(tool_calls=(wire.ToolCallDelta(index=0, arguments='"Bonn"}'),)),
    Chunk(finish_reason="tool_calls", usage=wire.Usage(prompt_tokens=7, completion_tokens=9)),
]


async def test_streamed_calls(sdk: AsyncOpenAI, engine: FakeEngine) -> None:
    """The SDK's own accumulation of tool calls, several choices at once."""
    other = [chunk.model_copy(update={"index": 1, "usage": None}) for chunk in CALL]
    engine.script = [*other, *CALL]
    tools: Any = [openai.pydantic_function_tool(Weather, name="weather")]
    async with sdk.chat.completions.stream(model="gemma3n", messages=HI, tools=tools, n=2) as stream:
        final = await stream.get_final_completion()
    for choice in final.choices:
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.function.parsed_arguments == Weather(city="Bonn")
    assert engine.asked[0].options.tools[0].strict


async def test_parsed_answer(sdk: AsyncOpenAI, engine: FakeEngine) -> None:
    engine.script = [Chunk(text='{"city":'), Chunk(text=' "Bonn"}'), END]
    answer = await sdk.chat.completions.parse(model="gemma3n", messages=HI, response_format=Weather)
    assert answer.choices[0].message.parsed == Weather(city="Bonn")
    assert isinstance(engine.asked[0].options.grammar, wire.JsonGrammar)


async def test_plain_completions(sdk: AsyncOpenAI) -> None:
    whole = await sdk.completions.create(model="gemma3n", prompt=["a", "b"], echo=True)
    assert [choice.text for choice in whole.choices] == ["aHello world", "bHello world"]
    stream = await sdk.completions.create(model="gemma3n", prompt="a", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "Hello world"


async def test_models(sdk: AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == [MODEL, "gemma3n"]
    assert (await sdk.models.retrieve(MODEL)).id == MODEL


async def test_sync(url: str) -> None:
    def use() -> tuple[str | None, str]:
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
            stream = client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=True
            )
            joined = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return whole.choices[0].message.content, joined

    assert await asyncio.to_thread(use) == ("Hello world", "Hello world")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (wire.InvalidRequest("no", "messages"), openai.BadRequestError),
        (wire.Overloaded("full"), openai.RateLimitError),
        (wire.EngineFailure("broke"), openai.InternalServerError),
        (wire.Unavailable("down"), openai.InternalServerError),
    ],
)
async def test_exceptions(
    sdk: AsyncOpenAI, engine: FakeEngine, error: wire.WireError, kind: type[openai.APIStatusError]
) -> None:
    engine.script = [error]
    with pytest.raises(kind) as caught:
        await sdk.chat.completions.create(model="gemma3n", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.request_id is not None


async def test_exceptions_of_our_own(sdk: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await sdk.models.retrieve("gpt-4o")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.chat.completions.create(
            model="gemma3n", messages=[{"role": "user", "content": "Hi"}], temperature=5
        )
    assert refused.value.param == "temperature"


async def test_too_large(sdk: AsyncOpenAI) -> None:
    """The client sends all of the body, and then reads the response."""
    with pytest.raises(openai.APIStatusError) as caught:
        await sdk.chat.completions.create(
            model="gemma3n", messages=[{"role": "user", "content": "x" * 5_000_000}]
        )
    assert caught.value.status_code == 413


async def test_error_in_mid_stream(sdk: AsyncOpenAI, engine: FakeEngine) -> None:
    engine.script = [Chunk(text="a"), wire.Unavailable("lost")]
    stream = await sdk.chat.completions.create(
        model="gemma3n", messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    with pytest.raises(openai.APIError) as caught:
        async for _ in stream:
            pass
    assert caught.value.code == "service_unavailable"
