"""Values of parameters: how they reach the model, and which are refused."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, asked, assert_error, chat, post

import gemma_wire as wire
from gemma_wire import Message, Options, Request


async def test_parameters_that_are_not_given_are_not_passed_on(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    assert await asked(client, engine, chat()) == Request(
        messages=(Message(role="user", content="Hi"),), stream=True
    )


async def test_supported_parameters_reach_the_model(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    alike = {
        "seed": -(2**63),
        "stop": ("a", "b", "c", "d"),
        "stop_token_ids": (5, 6),
        "n": 128,
        "frequency_penalty": -2,
        "presence_penalty": 2,
        "top_k": 3,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "min_tokens": 2,
        "ignore_eos": True,
        "cache_salt": "ward 1",
    }
    engine.script = [wire.Overloaded("128 answers are much")]
    body = chat(temperature=0, top_p=0.5, max_tokens=9, logit_bias={"7": -100, "8": 0.5}, **alike)
    await post(client, body)
    (request,) = engine.asked
    assert (request.temperature, request.top_p, request.max_tokens) == (0.0, 0.5, 9)
    assert request.options == Options(**alike, logit_bias={7: -100, 8: 0.5})


@pytest.mark.parametrize(
    ("asked_for", "logprobs"),
    [({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 20}, 20), ({"logprobs": False}, None)],
)
async def test_logprobs_reach_the_model(
    client: httpx.AsyncClient, engine: FakeEngine, asked_for: dict[str, Any], logprobs: int | None
) -> None:
    assert (await asked(client, engine, chat(**asked_for))).options.logprobs == logprobs


async def test_top_p_zero_is_the_most_likely_token(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert (await asked(client, engine, chat(top_p=0))).top_p == pytest.approx(1e-6)


async def test_equivalent_parameters(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    request = await asked(
        client, engine, chat(max_completion_tokens=5, stop="x", top_k=-1, temperature=2, top_p=1)
    )
    assert (request.max_tokens, request.options.stop, request.options.top_k) == (5, ("x",), 0)
    assert (await asked(client, engine, chat(max_tokens=5, max_completion_tokens=5))).max_tokens == 5


NEUTRAL: dict[str, list[Any]] = {
    "temperature": [None],
    "top_p": [None],
    "max_tokens": [None],
    "max_completion_tokens": [None],
    "stop": [None],
    "seed": [None],
    "stream": [None, False],
    "stream_options": [None],
    "service_tier": [None],
    "n": [None, 1],
    "frequency_penalty": [None, 0, 0.0],
    "presence_penalty": [None, 0, -0.0],
    "logit_bias": [None, {}],
    "logprobs": [None, False],
    "top_logprobs": [None],
    "response_format": [{"type": "text"}],
    "structured_outputs": [None],
    "tools": [[]],
    "tool_choice": [
        "none",
        "auto",
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
    ],
    "parallel_tool_calls": [True],
    "function_call": ["none", "auto"],
    "modalities": [None, ["text"]],
    "audio": [None],
    "prediction": [None, {"type": "content", "content": ""}],
    "reasoning_effort": [None, "none"],
    "verbosity": [None, "medium"],
    "store": [None, False],
    "moderation": [None],
    "user": ["u"],
    "safety_identifier": ["s" * 64],
    "prompt_cache_key": ["k"],
    "prompt_cache_retention": [None, "in_memory", "24h"],
    "prompt_cache_options": [None, {"ttl": "30m"}],
    "metadata": [None, {}, {"a": "b"}],
    "top_k": [None],
    "min_p": [None, 0],
    "repetition_penalty": [None, 1],
    "min_tokens": [None],
    "ignore_eos": [None],
    "stop_token_ids": [None, []],
    "cache_salt": [None, ""],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in NEUTRAL for value in NEUTRAL[name]])
async def test_values_that_change_nothing(
    client: httpx.AsyncClient, engine: FakeEngine, name: str, value: Any
) -> None:
    request = await asked(client, engine, chat(**{name: value}))
    assert request == Request(messages=(Message(role="user", content="Hi"),), stream=True)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("function_call", {"name": "f"}, "unsupported_value"),
        ("modalities", ["text", "audio"], "unsupported_value"),
        ("audio", {"voice": "alloy", "format": "wav"}, "unsupported_parameter"),
        ("moderation", {"model": "m"}, "unsupported_parameter"),
        ("functions", [{"name": "f"}], "unsupported_parameter"),
        ("web_search_options", {"search_context_size": "low"}, "unsupported_parameter"),
        ("best_of", 2, "unsupported_value"),
        ("use_beam_search", True, "unsupported_value"),
        ("mirostat", 2, "unsupported_value"),
        ("truncate_prompt_tokens", 5, "unsupported_parameter"),
        ("extra_body", {"top_k": 1}, "unsupported_parameter"),
        ("<odd>", 1, "unknown_parameter"),
    ],
)
async def test_unsupported_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, name: str, value: Any, code: str
) -> None:
    sentence = assert_error(await post(client, chat(**{name: value})), 400, name, code)
    assert "is not supported by this server" in sentence
    assert engine.asked == []


@pytest.mark.parametrize(
    ("rest", "param", "code"),
    [
        ({"temperature": 5}, "temperature", "decimal_above_max_value"),
        ({"temperature": -0.1}, "temperature", "decimal_below_min_value"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": -0.01}, "top_p", "decimal_below_min_value"),
        ({"top_p": 1.01}, "top_p", "decimal_above_max_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 2**31}, "max_tokens", "integer_above_max_value"),
        ({"max_tokens": "5"}, "max_tokens", "invalid_type"),
        ({"max_tokens": 5.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "invalid_parameter_combination"),
        ({"min_tokens": 3, "max_tokens": 2}, "min_tokens", "invalid_parameter_combination"),
        ({"min_tokens": -1}, "min_tokens", "integer_below_min_value"),
        ({"top_k": -2}, "top_k", "integer_below_min_value"),
        ({"stop": ""}, "stop[0]", "empty_string"),
        ({"stop": ["a"] * 17}, "stop", "array_above_max_length"),
        ({"stop": ["a", 1]}, "stop[1]", "invalid_type"),
        ({"stop": 1}, "stop", "invalid_type"),
        ({"seed": 2**63}, "seed", "integer_above_max_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream": 1}, "stream", "invalid_type"),
        ({"stream": True, "stream_options": 1}, "stream_options", "invalid_type"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": 1}},
            "stream_options.include_obfuscation",
            "invalid_type",
        ),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"frequency_penalty": 2.1}, "frequency_penalty", "decimal_above_max_value"),
        ({"presence_penalty": -2.1}, "presence_penalty", "decimal_below_min_value"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a", "invalid_key"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1", "invalid_key"),
        ({"logit_bias": {"٣": 1}}, "logit_bias.٣", "invalid_key"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "decimal_above_max_value"),
        ({"logit_bias": {"5": "1"}}, "logit_bias.5", "invalid_type"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias", "object_above_max_length"),
        ({"logprobs": 0}, "logprobs", "invalid_type"),
        ({"top_logprobs": 1}, "top_logprobs", "invalid_parameter_combination"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
        ({"min_p": 1.1}, "min_p", "decimal_above_max_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "decimal_below_min_value"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty", "decimal_below_min_value"),
        (
            {"repetition_penalty": 1.1, "repeat_penalty": 1.2},
            "repeat_penalty",
            "invalid_parameter_combination",
        ),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]", "integer_below_min_value"),
        ({"prediction": {"type": "content"}}, "prediction.content", "missing_required_parameter"),
        ({"user": 5}, "user", "invalid_type"),
        ({"safety_identifier": "s" * 65}, "safety_identifier", "string_above_max_length"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata", "object_above_max_length"),
        ({"model": 5}, "model", "invalid_type"),
        ({"model": None}, "model", "invalid_type"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": {}}, "messages", "invalid_type"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": ["Hi"]}, "messages[0]", "invalid_type"),
    ],
)
async def test_invalid_values(
    client: httpx.AsyncClient, engine: FakeEngine, rest: dict[str, Any], param: str, code: str
) -> None:
    sentence = assert_error(await post(client, chat() | rest), 400, param, code)
    assert param in sentence
    assert engine.asked == []
