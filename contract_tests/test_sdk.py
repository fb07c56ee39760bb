"""The helpers of OpenAI's Python SDK: typed streams, parsed responses, exceptions."""

import enum
import json
import re
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from scenarios import WEATHER
from server import HI, Server

CITY = Literal["Paris", "Rome", "Kuala Lumpur"]


class Kind(enum.StrEnum):
    SUN = "sun"
    RAIN = "rain"


class Day(BaseModel):
    kind: Kind
    degrees: int = Field(ge=-9, le=9)


class Forecast(BaseModel):
    city: CITY
    sure: bool
    days: list[Day] = Field(min_length=1, max_length=2)


class get_weather(BaseModel):  # noqa: N801 - the name of the tool
    city: CITY
    days: Literal[1, 2, 3]


WILD: Any = {"temperature": 1.5, "max_tokens": 300, "seed": 1}


@pytest.mark.parametrize("seed", range(3))
def test_parse_returns_an_object(client: Any, server: Server, seed: int) -> None:
    answer = client.chat.completions.parse(
        model=server.model, messages=HI, response_format=Forecast, **{**WILD, "seed": seed}
    )
    forecast = answer.choices[0].message.parsed
    assert isinstance(forecast, Forecast)
    assert Forecast.model_validate_json(answer.choices[0].message.content or "") == forecast


def test_parse_returns_the_arguments_of_a_tool(client: Any, server: Server) -> None:
    answer = client.chat.completions.parse(
        model=server.model,
        messages=HI,
        tools=[openai.pydantic_function_tool(get_weather)],
        tool_choice="required",
        **WILD,
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert all(isinstance(call.function.parsed_arguments, get_weather) for call in calls)


def test_the_stream_helper_builds_the_response(client: Any, server: Server) -> None:
    with client.chat.completions.stream(
        model=server.model,
        messages=HI,
        max_tokens=40,
        stream_options={"include_usage": True},
        extra_body={"structured_outputs": {"choice": ["It rains.", "The sun shines."]}},
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    kinds = [event.type for event in events]
    assert kinds.count("content.done") == 1
    assert "".join(event.delta for event in events if event.type == "content.delta") == (
        final.choices[0].message.content
    )
    assert final.usage
    assert final.usage.completion_tokens > 0


def test_the_stream_helper_parses_incrementally(client: Any, server: Server) -> None:
    with client.chat.completions.stream(
        model=server.model, messages=HI, response_format=Forecast, **WILD
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Forecast)


def test_the_stream_helper_collects_calls(client: Any, server: Server) -> None:
    with client.chat.completions.stream(
        model=server.model,
        messages=HI,
        tools=[openai.pydantic_function_tool(get_weather)],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        **WILD,
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert done
    assert all(isinstance(event.parsed_arguments, get_weather) for event in done)


async def test_the_async_client_parses_and_streams(async_client: Any, server: Server) -> None:
    answer = await async_client.chat.completions.parse(
        model=server.model, messages=HI, response_format=Forecast, **WILD
    )
    assert isinstance(answer.choices[0].message.parsed, Forecast)
    async with async_client.chat.completions.stream(
        model=server.model, messages=HI, response_format=Forecast, **WILD
    ) as stream:
        final = await stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Forecast)


def test_a_conversation_with_tools(client: Any, server: Server) -> None:
    """Call, result, response: as in a tool runner."""
    messages: list[Any] = [{"role": "user", "content": "The weather in Paris?"}]
    options: Any = {"model": server.model, "tools": [WEATHER], **WILD}
    answer = client.chat.completions.create(messages=messages, tool_choice="required", **options)
    messages.append(answer.choices[0].message)  # as it came
    for call in answer.choices[0].message.tool_calls or []:
        assert call.type == "function"
        result = {"asked": json.loads(call.function.arguments), "degrees": 21}
        messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
    # A model of random weights may end its turn at once: it is told what to say, and that is what must come.
    said = {"structured_outputs": {"choice": ["It is 21 degrees."]}}
    final = client.chat.completions.create(messages=messages, tool_choice="none", extra_body=said, **options)
    assert final.choices[0].message.content == "It is 21 degrees."
    assert not final.choices[0].message.tool_calls


GRAMMARS = {"regex": "[a-c]{2,4}", "lark": 'start: WORD ("-" WORD)?\nWORD: "ab" | "c"'}


@pytest.mark.parametrize("syntax", GRAMMARS)
@pytest.mark.parametrize("stream", [False, True])
def test_custom_tools(client: Any, server: Server, syntax: str, stream: bool) -> None:
    """The input is of the grammar; the call and its result are valid in a history."""
    grammar = {"syntax": syntax, "definition": GRAMMARS[syntax]}
    tool = {"type": "custom", "custom": {"name": "pick", "format": {"type": "grammar", "grammar": grammar}}}
    options: Any = {"model": server.model, "tools": [tool], **WILD}
    choice = {"type": "custom", "custom": {"name": "pick"}}
    answer = client.chat.completions.create(messages=HI, tool_choice=choice, stream=stream, **options)
    if stream:
        deltas = [call for chunk in answer for call in chunk.choices[0].delta.tool_calls or []]
        assert deltas[0].type == "custom"
        text = "".join(delta.custom["input"] for delta in deltas)
    else:
        (call,) = answer.choices[0].message.tool_calls
        text = call.custom.input
        result = {"role": "tool", "tool_call_id": call.id, "content": "Picked."}
        history = [*HI, answer.choices[0].message, result]
        assert client.chat.completions.create(messages=history, tool_choice="none", **options).choices
    pattern = GRAMMARS[syntax] if syntax == "regex" else "(ab|c)(-(ab|c))?"
    assert re.fullmatch(pattern, text)


def test_completions(client: Any, server: Server) -> None:
    answer = client.completions.create(
        model=server.model, prompt="Once upon", max_tokens=4, echo=True, logprobs=2, temperature=0
    )
    choice = answer.choices[0]
    assert choice.text.startswith("Once upon")
    assert choice.logprobs
    told = zip(choice.logprobs.tokens or [], choice.logprobs.text_offset or [], strict=True)
    assert all("Once upon"[offset:].startswith(token) for token, offset in told if offset < len("Once upon"))
    streamed = client.completions.create(
        model=server.model, prompt="Once upon", max_tokens=4, temperature=0, stream=True
    )
    assert "Once upon" + "".join(chunk.choices[0].text for chunk in streamed) == choice.text


@pytest.mark.parametrize(
    ("body", "error", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"temperature": 3}, openai.BadRequestError, "decimal_above_max_value"),
        (
            {"messages": [{"role": "user", "content": "~" * 5000}]},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
    ],
)
def test_exceptions(client: Any, server: Server, body: Any, error: Any, code: str) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": server.model, "messages": HI, "max_tokens": 2, **body})
    assert caught.value.code == code
    assert caught.value.request_id
