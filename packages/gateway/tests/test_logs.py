"""What is logged, and what is not."""

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, chat, post
from packages.gateway.tests.message_helpers import data_url, image_part, png, text_part

import gemma_wire as wire
from gemma_gateway.app import create_app
from gemma_gateway.observability.logs import JsonLines
from gemma_gateway.settings import GatewaySettings

SECRET = "the prince is a frog"


@pytest.fixture
def written() -> Iterator[StringIO]:
    """Everything that is logged at debug level, as JSON lines."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


def lines(stream: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def ours(stream: StringIO) -> list[dict[str, Any]]:
    return [line for line in lines(stream) if line["logger"] == "gemma_gateway.observability.request_log"]


async def test_a_request_is_one_line(client: httpx.AsyncClient, written: StringIO) -> None:
    response = await post(client, chat(temperature=9))
    (line,) = ours(written)
    assert line["level"] == "info"
    assert line["time"].endswith("+00:00")
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 400)
    assert line["request_id"] == response.headers["x-request-id"]
    assert line["error"] == response.json()["error"]["code"]
    assert line["milliseconds"] > 0


async def test_a_traceback_stays_one_line(
    client: httpx.AsyncClient, engine: FakeEngine, written: StringIO
) -> None:
    engine.script = [ZeroDivisionError("a bug\nof two lines")]
    await post(client, chat())
    failed, line = ours(written)
    assert "ZeroDivisionError" in failed["traceback"]
    assert (line["status"], line["error"]) == (500, "internal_error")


@pytest.mark.parametrize(
    "script",
    [
        [wire.Chunk(text=SECRET), wire.EngineFailure("broke")],
        [ZeroDivisionError("a bug")],
        [wire.InvalidRequest("too odd", "messages[0].content")],
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_prompts_and_responses_are_not_logged(
    client: httpx.AsyncClient, engine: FakeEngine, written: StringIO, script: list[Any], stream: bool
) -> None:
    engine.script = script
    await post(client, chat(SECRET, stream=stream))
    await post(client, chat(SECRET, temperature=SECRET))
    await client.post("/v1/chat/completions", content=json.dumps(chat(SECRET))[:-1])
    assert written.getvalue()
    assert SECRET not in written.getvalue()


async def test_prompts_are_logged_with_log_prompts(engine: FakeEngine, written: StringIO) -> None:
    """Without images."""
    app = create_app(GatewaySettings(log_prompts=True), engine)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            response = await post(client, chat([text_part(SECRET), image_part(data_url(png()))]))
    (line,) = [line for line in lines(written) if SECRET in line["message"]]
    assert response.headers["x-request-id"] in line["message"]
    assert "PNG" not in line["message"]


async def test_health_checks_are_logged_when_the_status_changes(
    client: httpx.AsyncClient, engine: FakeEngine, written: StringIO
) -> None:
    async def probe() -> None:
        for path in ("/health/live", "/health/ready", "/health/ready"):
            await client.get(path)

    await probe()
    engine.info = wire.Unavailable("loading")
    client._transport.app.state.gateway.models.forget()  # type: ignore[attr-defined]
    await probe()
    engine.info = wire.Unavailable("still loading")
    await probe()
    told = [(line["path"], line["status"]) for line in ours(written) if line["level"] == "info"]
    assert told == [("/health/ready", 503)]
    engine.info = FakeEngine().info
    await probe()
    told = [(line["path"], line["status"]) for line in ours(written) if line["level"] == "info"]
    assert told == [("/health/ready", 503), ("/health/ready", 200)]
