"""Every error: its status, body and headers."""

import json
import logging
from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, assert_error, chat, post
from packages.gateway.tests.message_helpers import data_url, image_part, png, text_part

import gemma_wire as wire
from gemma_wire import Chunk, WireError


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "param", "code"),
    [
        (wire.InvalidRequest("too odd", "temperature"), 400, "temperature", "invalid_value"),
        (wire.InvalidRequest("too odd", "options.top_k"), 400, "top_k", "invalid_value"),
        (wire.InvalidRequest("too odd", "messages[0].content"), 400, "messages[0].content", "invalid_value"),
        (wire.InvalidRequest("too odd", "prompt"), 400, "messages", "invalid_value"),
        (wire.InvalidRequest("too odd"), 400, None, "invalid_value"),
        (wire.ContextLengthExceeded("9 > 5"), 400, "messages", "context_length_exceeded"),
        (wire.ContextLengthExceeded("9 > 5", "prompt"), 400, "messages", "context_length_exceeded"),
        (wire.Overloaded("queue is full"), 429, None, "rate_limit_exceeded"),
        (wire.Unavailable("restarting"), 503, None, "service_unavailable"),
    ],
)
async def test_the_models_errors(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    stream: bool,
    error: WireError,
    status: int,
    param: str | None,
    code: str,
) -> None:
    """Before the first chunk an error has its own status, streamed or not."""
    engine.script = [error]
    response = await post(client, chat(stream=stream))
    sentence = assert_error(response, status, param, code)
    told = f"Invalid '{param}': {error.message}." if code == "invalid_value" and param else error.message
    assert sentence == told
    assert ("retry-after" in response.headers) == (status in (429, 503))


async def test_an_engine_failure_has_its_details_only_in_the_log(
    client: httpx.AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.script = [wire.EngineFailure("secret path /models")]
    sentence = assert_error(await post(client, chat()), 500, None, "internal_error")
    assert "secret" not in sentence
    assert "secret path" in caplog.text


async def test_errors_about_images_name_the_clients_parameter(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = [wire.InvalidRequest("cannot be decoded", "images[2]")]
    picture = image_part(data_url(png()))
    messages = [
        {"role": "user", "content": [picture, text_part("a"), picture]},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [text_part("c"), picture]},
    ]
    response = await post(client, {"model": "gemma3n", "messages": messages})
    assert_error(response, 400, "messages[2].content[1].image_url.url", "invalid_value")


async def test_an_error_names_the_max_tokens_parameter_that_was_used(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = [wire.InvalidRequest("too many", "max_tokens")]
    response = await post(client, chat(max_completion_tokens=5))
    assert_error(response, 400, "max_completion_tokens", "invalid_value")
    assert_error(await post(client, chat(max_tokens=5)), 400, "max_tokens", "invalid_value")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (wire.Unavailable("lost"), "service_unavailable"),
        (wire.EngineFailure("broke"), "internal_error"),
        (ValueError("a bug"), "internal_error"),
    ],
)
async def test_error_in_mid_stream(
    client: httpx.AsyncClient, engine: FakeEngine, error: Exception, code: str
) -> None:
    engine.script = [Chunk(text="Hello"), error]
    response = await post(client, chat(stream=True))
    assert response.status_code == 200
    *_, hello, last = response.text.removesuffix("\n\n").split("\n\n")
    assert '"content":"Hello"' in hello
    envelope = json.loads(last.removeprefix("data: "))
    assert envelope["error"]["code"] == code
    assert "[DONE]" not in response.text
    assert "a bug" not in response.text
    assert engine.running == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_is_a_500_without_its_traceback(
    client: httpx.AsyncClient, engine: FakeEngine, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine.script = [ZeroDivisionError("a bug")]
    response = await post(client, chat(stream=stream))
    assert_error(response, 500, None, "internal_error")
    assert response.json()["error"]["type"] == "server_error"
    assert "a bug" not in response.text
    assert "ZeroDivisionError" in caplog.text
    assert response.headers["x-request-id"] in caplog.text


async def test_a_stream_without_an_end_is_a_500(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for script in ([Chunk(text="a")], []):
        engine.script = list(script)
        assert_error(await post(client, chat()), 500, None, "internal_error")
    assert_error(await post(client, chat(stream=True)), 500, None, "internal_error")


async def test_unknown_model(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    sentence = assert_error(await post(client, chat() | {"model": "gpt-4o"}), 404, "model", "model_not_found")
    assert "gpt-4o" in sentence
    assert engine.asked == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("POST", "/v1/nope"), ("GET", "/v1/models-x"), ("GET", "/docs")]
)
async def test_unknown_url(client: httpx.AsyncClient, method: str, path: str) -> None:
    sentence = assert_error(await client.request(method, path), 404, None, "unknown_url")
    assert f"{method} {path}" in sentence


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("PUT", "/health", "GET, HEAD"),
    ],
)
async def test_wrong_method(client: httpx.AsyncClient, method: str, path: str, allowed: str) -> None:
    response = await client.request(method, path)
    assert_error(response, 405, None, "method_not_supported")
    assert sorted(response.headers["allow"].split(", ")) == allowed.split(", ")


async def test_types_are_openais(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    def kind(response: httpx.Response) -> Any:
        return response.json()["error"]["type"]

    assert kind(await post(client, {})) == "invalid_request_error"
    assert kind(await client.get("/nope")) == "invalid_request_error"
    engine.script = [wire.Overloaded("full")]
    assert kind(await post(client, chat())) == "requests"
    engine.script = [wire.Unavailable("down")]
    assert kind(await post(client, chat())) == "server_error"


async def test_request_id(
    client: httpx.AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    given = await client.post("/v1/chat/completions", json=chat(), headers={"x-request-id": "my-1.a:b_c"})
    assert given.headers["x-request-id"] == "my-1.a:b_c"
    assert engine.request_ids == ["my-1.a:b_c"]
    assert "POST '/v1/chat/completions' 200" in caplog.text
    assert "my-1.a:b_c" in caplog.text


@pytest.mark.parametrize("insane", ["", "a b", "x" * 129, "ä", "a\tb"])
async def test_invalid_request_ids_are_replaced(client: httpx.AsyncClient, insane: str) -> None:
    response = await client.get("/health/live", headers={b"x-request-id": insane.encode()})
    assert response.headers["x-request-id"].startswith("req_")


async def test_request_ids_differ(client: httpx.AsyncClient) -> None:
    ids = {(await client.get("/nope")).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


async def test_wire_errors_become_sentences(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """From the model, as one line through Triton, to the client."""
    line = wire.ContextLengthExceeded("5000 tokens, the context holds 4096", "messages").to_line()
    engine.script = [WireError.from_line(line)]
    sentence = assert_error(await post(client, chat()), 400, "messages", "context_length_exceeded")
    assert "5000" in sentence
    assert "4096" in sentence
