"""``/tokenize`` and ``/detokenize`` as in vLLM."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import INFO, MODEL, FakeEngine, assert_error
from packages.gateway.tests.message_helpers import data_url, image_part, png, text_part, tool

import gemma_wire as wire
from gemma_wire import ImagePart, Message, Options, Request, TextPart, Tool


async def tokenize(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/tokenize", json=body)


async def test_a_prompt(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    response = await tokenize(client, model=MODEL, prompt="Hi")
    tokens = {"count": 3, "max_model_len": INFO.context_length, "tokens": [2, 72, 105], "token_strs": None}
    assert response.json() == tokens
    assert engine.asked == [Request(prompt="Hi", options=Options(op="tokenize"))]


async def test_without_a_model_and_with_pieces(client: httpx.AsyncClient) -> None:
    body = (await tokenize(client, prompt="Hi", return_token_strs=True, add_special_tokens=True)).json()
    assert body["token_strs"] == ["<bos>", "H", "i"]


@pytest.mark.parametrize(("prompt", "tokens"), [("Hi", [72, 105]), ("", [])])
async def test_without_special_tokens(client: httpx.AsyncClient, prompt: str, tokens: list[int]) -> None:
    """The BOS token is added by the model, so it is omitted."""
    response = await tokenize(client, prompt=prompt, add_special_tokens=False, return_token_strs=True)
    body = response.json()
    assert (body["tokens"], body["count"]) == (tokens, len(tokens))
    assert body["token_strs"] == list(prompt)


async def test_a_bos_token_in_the_text_stays(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.begins = ()
    body = (await tokenize(client, prompt="Hi", add_special_tokens=False)).json()
    assert body["tokens"] == [72, 105]


async def test_a_conversation(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    parts = [text_part("a"), image_part(data_url(png()))]
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": parts}]
    response = await tokenize(client, messages=messages, tools=[tool("f")], add_generation_prompt=True)
    assert response.status_code == 200
    assert engine.asked == [
        Request(
            messages=(
                Message(role="system", content="s"),
                Message(role="user", content=(TextPart(text="a"), ImagePart())),
            ),
            images=(png(),),
            options=Options(op="tokenize", tools=(Tool(name="f"),)),
        )
    ]


async def test_tokenize_and_detokenize_are_inverse(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    tokens = (await tokenize(client, prompt="Häß 🙂", add_special_tokens=False)).json()["tokens"]
    response = await client.post("/detokenize", json={"model": MODEL, "tokens": tokens})
    assert response.json() == {"prompt": "Häß 🙂"}
    expected = Options(op="detokenize", prompt_token_ids=tuple(tokens))
    assert engine.asked[-1] == Request(options=expected)


async def test_an_empty_token_list_is_an_empty_text(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert (await client.post("/detokenize", json={"tokens": []})).json() == {"prompt": ""}
    assert engine.asked == []


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "prompt", "invalid_parameter_combination"),
        ({"messages": []}, "prompt", "invalid_parameter_combination"),
        (
            {"prompt": "x", "messages": [{"role": "user", "content": "x"}]},
            "prompt",
            "invalid_parameter_combination",
        ),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"prompt": "x", "tools": [tool("f")]}, "tools", "invalid_parameter_combination"),
        ({"messages": [{"role": "wizard"}]}, "messages[0].role", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": "x"}], "add_special_tokens": True},
            "add_special_tokens",
            "invalid_parameter_combination",
        ),
        (
            {"prompt": "x", "continue_final_message": True},
            "continue_final_message",
            "invalid_parameter_combination",
        ),
        ({"prompt": "x", "chat_template": "t"}, "chat_template", "unsupported_parameter"),
        ({"prompt": "x", "n": 1}, "n", "unknown_parameter"),
    ],
)
async def test_refused(client: httpx.AsyncClient, body: dict[str, Any], param: str, code: str) -> None:
    assert_error(await tokenize(client, **body), 400, param, code)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "tokens", "missing_required_parameter"),
        ({"tokens": "x"}, "tokens", "invalid_type"),
        ({"tokens": [1.5]}, "tokens[0]", "invalid_type"),
        ({"tokens": [-1]}, "tokens[0]", "integer_below_min_value"),
    ],
)
async def test_refused_tokens(client: httpx.AsyncClient, body: Any, param: str, code: str) -> None:
    assert_error(await client.post("/detokenize", json=body), 400, param, code)


async def test_the_models_errors(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [wire.InvalidRequest("there is no token 9", "options.prompt_token_ids[1]")]
    response = await client.post("/detokenize", json={"tokens": [5, 9]})
    assert_error(response, 400, "tokens[1]", "invalid_value")
    engine.script = [wire.ContextLengthExceeded("long", "prompt")]
    assert_error(await tokenize(client, prompt="x"), 400, "prompt", "context_length_exceeded")
    engine.script = [wire.Unavailable("down")]
    assert_error(await tokenize(client, prompt="x"), 503, None, "service_unavailable")
    assert_error(await tokenize(client, model="gpt-4o", prompt="x"), 404, "model", "model_not_found")


async def test_paths_have_no_v1_prefix(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/tokenize", json={"prompt": "x"})
    assert_error(response, 404, None, "unknown_url")
