"""Values of other servers and clients: no-ops, histories, forms of numbers and images."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, asked, assert_error, chat
from packages.gateway.tests.message_helpers import call, image_part, png, text_part
from packages.gateway.tests.message_helpers import data_url as as_url
from pydantic import BaseModel

from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.schema.completions import CompletionRequest
from gemma_wire import Message, Request

PLAIN = Request(messages=(Message(role="user", content="Hi"),), stream=True)
HARMLESS: dict[str, list[Any]] = {
    "use_beam_search": [False],
    "length_penalty": [1.0, 1, 0.5],
    "early_stopping": [True],
    "verbosity": ["low", "medium", "high"],
    "reasoning_effort": ["none", "minimal", "low", "medium", "high", "xhigh"],
    "reasoning": [{"effort": "low", "summary": "auto"}],
    "include_reasoning": [True, False],
    "separate_reasoning": [True],
    "thinking": [{"type": "disabled"}, {"type": "enabled", "budget_tokens": 5}],
    "enable_thinking": [False, True],
    "store": [True],
    "echo": [False],
    "best_of": [1],
    "do_sample": [True],
    "spaces_between_special_tokens": [True],
    "include_stop_str_in_output": [False],
    "priority": [0, 5],
    "request_id": ["r"],
    "typical_p": [1.0, 1],
    "tfs_z": [1],
    "mirostat": [0],
    "mirostat_tau": [5.0],
    "xtc_probability": [0.0],
    "repeat_last_n": [64, -1],
    "num_ctx": [4096],
    "keep_alive": ["5m", -1],
    "cache_prompt": [True],
    "provider": [{"order": ["x"]}],
    "transforms": [["middle-out"]],
    "models": [["a", "b"]],
    "usage": [{"include": True}],
    "service_tier": ["auto", "default", "flex", "priority", "scale"],
    "stream_options": [{"include_usage": True}],
    "top_logprobs": [0],
    "max_tokens": [-1],
    "prompt_cache_retention": ["in-memory"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in HARMLESS for value in HARMLESS[name]])
async def test_noop_values_of_other_servers_parameters(
    client: httpx.AsyncClient, engine: FakeEngine, name: str, value: Any
) -> None:
    request = await asked(client, engine, chat(**{name: value}))
    expected = {"max_tokens": 2**31 - 1} if name == "max_tokens" else {}
    assert request == PLAIN.model_copy(update=expected)


async def test_history_as_other_servers_write_it(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Unknown fields of messages and parts are ignored; other names of part types are accepted."""
    messages = [
        {"role": "system", "content": [{"type": "input_text", "text": "s", "cache_control": {"type": "x"}}]},
        {"role": "user", "content": [text_part("a") | {"id": 5}], "id": "msg_1", "timestamp": 5},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "reasoning", "text": "hm"},
                {"type": "output_text", "text": "b", "annotations": [{"type": "url_citation"}]},
            ],
            "id": "msg_2",
            "reasoning": "hm",
            "reasoning_content": "hm",
            "annotations": [{"type": "url_citation"}],
            "audio": None,
            "function_call": None,
            "refusal": None,
            "provider_specific_fields": {"x": 1},
            "tool_calls": [{**call("c1"), "index": 0, "function": {"name": "f", "arguments": "{}", "x": 1}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "r", "status": "success", "is_error": False},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "only"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": as_url(png()), "detail": "auto"}]},
    ]
    request = await asked(client, engine, {"model": "gemma3n", "messages": messages})
    assert request.images == (png(),)
    assert request.messages is not None
    system, user, assistant, result, thought, shown = request.messages
    assert [part.model_dump().get("text") for part in (*system.parts, *user.parts, *assistant.parts)] == [
        "s",
        "a",
        "b",
    ]
    assert (assistant.tool_calls[0].id, result.content, thought.content) == ("c1", "r", "")
    assert [part.type for part in shown.parts] == ["image"]


async def test_do_sample_false_is_greedy(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert (await asked(client, engine, chat(do_sample=False, temperature=1))).temperature == 0


async def test_an_image_by_its_url_alone(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    part = {"type": "image_url", "image_url": as_url(png())}
    assert (await asked(client, engine, chat([part]))).images == (png(),)


async def test_an_image_in_a_tools_result(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    messages = [
        {"role": "user", "content": [image_part(as_url(png(1, 1)))]},
        {"role": "assistant", "content": "", "tool_calls": [call("c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": [text_part("r"), image_part(as_url(png(2, 2)))]},
    ]
    request = await asked(client, engine, {"model": "gemma3n", "messages": messages})
    assert request.images == (png(1, 1), png(2, 2))
    assert request.messages is not None
    assert [part.type for part in request.messages[2].parts] == ["text", "image"]


@pytest.mark.parametrize(
    ("name", "value", "field", "read"),
    [
        ("max_tokens", 10.0, "max_tokens", 10),
        ("seed", -0.0, "seed", 0),
        ("top_k", 5.0, "top_k", 5),
        ("n", 1.0, "n", 1),
        ("stop_token_ids", [5.0, 6], "stop_token_ids", (5, 6)),
        ("temperature", 1, "temperature", 1.0),
        ("temperature", 1e-320, "temperature", 1e-320),
        ("repetition_penalty", 0.01, "repetition_penalty", 0.01),
        ("repeat_penalty", 1.5, "repetition_penalty", 1.5),
        ("frequency_penalty", -0.0, "frequency_penalty", 0),
    ],
)
async def test_numbers(
    client: httpx.AsyncClient, engine: FakeEngine, name: str, value: Any, field: str, read: Any
) -> None:
    request = await asked(client, engine, chat(**{name: value}))
    assert getattr(request if field in Request.model_fields else request.options, field) == read


NUMERIC = {
    ChatRequest: [
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "repeat_penalty",
        "seed",
        "n",
        "top_k",
        "min_p",
        "min_tokens",
        "top_logprobs",
    ],
    CompletionRequest: ["max_tokens", "logprobs", "best_of", "n"],
}


@pytest.mark.parametrize(
    ("schema", "name"), [(schema, name) for schema, names in NUMERIC.items() for name in names]
)
@pytest.mark.parametrize("number", ["1e308", "-1e308", "1e400", "1" * 400, "true", '"1"', '"NaN"', "[1]"])
async def test_extreme_numbers(
    client: httpx.AsyncClient, engine: FakeEngine, schema: type[BaseModel], name: str, number: str
) -> None:
    """None of them overflows, and a boolean is not a number."""
    path, rest = ("chat/completions", '"messages": [{"role": "user", "content": "x"}]')
    if schema is CompletionRequest:
        path, rest = ("completions", '"prompt": "x"')
    body = f'{{"model": "gemma3n", {rest}, "logprobs": true, "{name}": {number}}}'
    if schema is CompletionRequest:
        body = body.replace('"logprobs": true, ', "")
    response = await client.post(f"/v1/{path}", content=body, headers={"content-type": "application/json"})
    assert_error(response, 400, name, response.json()["error"]["code"])
    assert engine.asked == []
