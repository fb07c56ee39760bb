"""Headers about JSON schemas: unenforced keywords, and whether the result is valid."""

from typing import Any

import httpx
import pytest

from gemma_wire import Chunk, JsonGrammar, Usage

from .conftest import FakeEngine

USAGE = Usage(prompt_tokens=7, completion_tokens=2)
SCHEMA = {"type": "array", "uniqueItems": True}


def _body(strict: bool | None, stream: bool = False) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": strict}}
    return {
        "model": "google/gemma-3n-E4B-it",
        "messages": [{"role": "user", "content": "Hi"}],
        "response_format": form,
        "stream": stream,
    }


def _script(valid: bool) -> list[Any]:
    return [
        Chunk(text="[1", unenforced=("uniqueItems", "not")),
        Chunk(text="]"),
        Chunk(finish_reason="stop", usage=USAGE, schema_valid=valid),
    ]


@pytest.mark.parametrize("strict", [True, False, None])
async def test_strict_is_passed_on(
    client: httpx.AsyncClient, engine: FakeEngine, strict: bool | None
) -> None:
    await client.post("/v1/chat/completions", json=_body(strict))
    assert engine.asked[0].options.grammar == JsonGrammar(json_schema=SCHEMA, strict=bool(strict))


@pytest.mark.parametrize("valid", [True, False])
async def test_a_complete_response_reports_everything_in_headers(
    client: httpx.AsyncClient, engine: FakeEngine, valid: bool
) -> None:
    engine.script = _script(valid)
    answer = await client.post("/v1/chat/completions", json=_body(False))
    assert answer.headers["x-unenforced-keywords"] == "uniqueItems, not"
    assert answer.headers["x-schema-valid"] == str(valid).lower()
    counted = f'gemma_api_schema_answers_total{{valid="{str(valid).lower()}"}} 1.0'
    assert counted in (await client.get("/metrics")).text


@pytest.mark.parametrize("valid", [True, False])
async def test_a_stream_reports_unenforced_keywords_first_and_validity_last(
    client: httpx.AsyncClient, engine: FakeEngine, valid: bool
) -> None:
    engine.script = _script(valid)
    answer = await client.post("/v1/chat/completions", json=_body(False, stream=True))
    assert answer.headers["x-unenforced-keywords"] == "uniqueItems, not"
    assert "x-schema-valid" not in answer.headers
    word = f": x-schema-valid: {str(valid).lower()}\n\ndata: [DONE]\n\n"
    assert answer.text.endswith(word)


@pytest.mark.parametrize("stream", [True, False])
async def test_nothing_is_reported_when_everything_is_enforced(
    client: httpx.AsyncClient, engine: FakeEngine, stream: bool
) -> None:
    answer = await client.post("/v1/chat/completions", json=_body(True, stream))
    assert not {"x-unenforced-keywords", "x-schema-valid"} & set(answer.headers)
    assert "x-schema-valid" not in answer.text
