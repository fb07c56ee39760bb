"""Large bodies, and bodies with very many small values: other requests must not be delayed."""

import asyncio
import gc
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, assert_error, gateway
from pydantic import BaseModel, ValidationError

import gemma_wire as wire
from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.schema.tokenize import DetokenizeRequest, TokenizeRequest
from gemma_wire.json_limits import LIMITS

MIB = 2**20
LONGEST_LAG = 0.25
JSON = {"content-type": "application/json"}
USER = '{"role":"user","content":"a"}'


async def sent(body: bytes) -> AsyncIterator[bytes]:
    """As received from a socket."""
    for start in range(0, len(body), 2**16):
        yield body[start : start + 2**16]
        await asyncio.sleep(0)


async def lag(client: httpx.AsyncClient, path: str, body: bytes) -> tuple[float, httpx.Response]:
    """The longest time for which the event loop was blocked by a request, in seconds; and the response.

    It is the processor's time, also that of other threads, which keep Python's lock: what other processes do
    meanwhile does not count.
    """
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            before = time.process_time()
            await asyncio.sleep(0.005)
            worst = max(worst, time.process_time() - before)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.02)
    response = await client.post(path, content=sent(body), headers=JSON)
    watching.cancel()
    return worst, response


def body(**parts: str) -> bytes:
    """A chat request whose values are given as JSON."""
    fields = {"model": '"gemma3n"', "messages": f"[{USER}]", **parts}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}").encode()


def array(item: str, count: int) -> str:
    return f"[{','.join([item] * count)}]"


def keys(count: int, value: str = "1") -> str:
    """An object with many members."""
    return "{" + ",".join(f'"{i}":{value}' for i in range(count)) + "}"


def said(content: str) -> str:
    return f'{{"role":"user","content":{content}}}'


def tool(schema: str) -> str:
    return f'[{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}]'


def user(letters: str, bytes_each: int, count: int) -> bytes:
    """A JSON string with which the request has exactly ``count`` of the counted items."""
    return body(user=f'"{letters * (count // bytes_each - 1)}"')


STRINGS, VALUES = LIMITS.strings - 100, LIMITS.values - 100
PART = '{"type":"text","text":"a"}'
LONG = 60 * MIB
# The most of each that the limits allow, and the status that such a request gets.
MOST: dict[str, tuple[int, Callable[[], bytes]]] = {
    "messages": (200, lambda: body(messages=array(USER, 2048))),
    "parts": (200, lambda: body(messages=array(said(array(PART, 2)), 2048))),
    "wrong messages": (400, lambda: body(messages=array('{"role":"user","x":1}', 2048))),
    "wrong parts": (400, lambda: body(messages=array(said("[{},{}]"), 2048))),
    "too many messages": (400, lambda: body(messages=array(USER, 16_000))),
    "too many parts": (400, lambda: body(messages=f"[{said(array(PART, 16_000))}]")),
    "unknown parameters": (400, lambda: body(**{f"k{i}": "1" for i in range(STRINGS)})),
    "unknown keys of a message": (400, lambda: body(messages=f"[{keys(STRINGS)}]")),
    "keys of a schema": (200, lambda: body(tools=tool(keys(STRINGS)))),
    "objects of a schema": (200, lambda: body(tools=tool(f'{{"a":{array("{}", LIMITS.containers - 100)}}}'))),
    "biases": (400, lambda: body(logit_bias=keys(STRINGS, "true"))),
    "labels": (400, lambda: body(metadata=keys(STRINGS))),
    "choices": (200, lambda: body(structured_outputs=f'{{"choice":{array(PAIR, STRINGS // 2)}}}')),
    "a value of many": (400, lambda: body(modalities=array("1", VALUES))),
    "a role of many": (400, lambda: body(messages=f'[{{"role":{array("1", VALUES)}}}]')),
    "escapes": (200, lambda: user("\\n", 1, LIMITS.escapes)),
    "escaped letters": (200, lambda: user("\\u0416", 1, LIMITS.escapes)),
    "letters of two bytes": (200, lambda: user("é", 2, LIMITS.non_ascii)),
    "letters of four bytes": (200, lambda: user("😀", 4, LIMITS.non_ascii)),
    "digits": (400, lambda: body(seed=array("9" * 4300, LIMITS.digits // 4301))),
    "a long text": (400, lambda: body(messages=f"[{said(chr(34) + 'a' * LONG + chr(34))}]")),
    "a long key": (400, lambda: body(**{"k" * LONG: "1"})),
    "a long role": (400, lambda: body(messages=f'[{{"role":"{"r" * LONG}"}}]')),
    "a long wrong value": (400, lambda: body(modalities=f'"{"v" * LONG}"')),
    "spaces": (200, lambda: b" " * LONG + body()),
}
PAIR = '"a","b"'


@pytest.fixture(scope="module", autouse=True)
def without_the_tests_objects() -> Iterator[None]:
    """Python's garbage collector looks at all objects of a process, and a test run has a million of them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("name", MOST)
async def test_a_large_body_does_not_delay_other_requests(engine: FakeEngine, name: str) -> None:
    status, make = MOST[name]
    text = make()
    seen: list[float] = []
    async with gateway(engine) as client:
        while len(seen) < 3:  # a machine may be slow for a moment
            worst, response = await lag(client, "/v1/chat/completions", text)
            assert response.status_code == status, response.text[:300]
            assert len(response.content) < 1000
            seen.append(round(worst, 3))
            if worst < LONGEST_LAG:
                return
    raise AssertionError(f"the event loop was busy for {seen} seconds")


async def test_tokens_of_many_prompts(engine: FakeEngine) -> None:
    """128 prompts of 2,000 tokens, a typical batch of an evaluation."""
    prompts = f"[{','.join([array('1234', 2000)] * 128)}]"
    text = f'{{"model":"gemma3n","prompt":{prompts},"max_tokens":1}}'.encode()
    async with gateway(engine) as client:
        worst, response = await lag(client, "/v1/completions", text)
    assert response.status_code == 200, response.text
    assert len(engine.asked) == 128
    assert worst < 4 * LONGEST_LAG


@pytest.mark.parametrize(
    ("text", "param", "says"),
    [
        (body(messages=array(USER, 3000)), "messages", "has 3,000 items; 2,048 are allowed"),
        (body(messages=array(USER, 40_000)), "messages", "more than 65,536 strings"),
        (body(messages=f"[{said(array(PART, 5000))}]"), "messages", "5,000 parts of content .* 4,096 are"),
        (body(messages=f"[{keys(257)[:-1]},{USER[1:]}]"), "messages[0]", "has 259 keys; 256 are allowed"),
        (body(tools=tool(array("[]", 40_000))), "tools", "more than 32,768 objects and arrays"),
        (body(modalities=array("1", VALUES + 100)), "modalities", "more than 262,144 values"),
        (body(**{f"k{i}": "1" for i in range(66_000)}), None, "more than 65,536 strings"),
        (body(messages="[" * 200 + "]" * 200), "messages", "more than 128 levels of nesting"),
        (b"[" * 100_000, None, "more than 128 levels of nesting"),
    ],
    ids=range(9),
)
async def test_an_error_names_the_parameter_over_a_json_limit(
    engine: FakeEngine, text: bytes, param: str | None, says: str
) -> None:
    async with gateway(engine) as client:
        response = await client.post("/v1/chat/completions", content=text, headers=JSON)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert re.search(says, error["message"]), error
    assert engine.asked == []


async def test_a_body_over_a_json_limit_is_refused_before_it_is_complete(engine: FakeEngine) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield b'{"messages":['
        while read < 10**9:
            read += 2**16
            yield (USER + ",").encode() * (2**16 // 30)

    async with gateway(engine) as client:
        response = await client.post("/v1/chat/completions", content=endless(), headers=JSON)
    assert_error(response, 400, "messages", "request_too_complex")
    assert read < 2 * MIB


@pytest.mark.parametrize(
    "schema", [ChatRequest, CompletionRequest, TokenizeRequest, DetokenizeRequest, wire.Request]
)
def test_validation_stops_at_the_first_wrong_item(schema: type[BaseModel]) -> None:
    """In every array of every request, including future ones."""
    arrays = list(_arrays(schema.__pydantic_core_schema__))
    assert arrays
    assert all(array.get("fail_fast") for array in arrays), arrays


def _arrays(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict) and schema.get("type") in ("list", "tuple", "set"):
        yield schema
    if isinstance(schema, dict | list):
        for inner in schema.values() if isinstance(schema, dict) else schema:
            yield from _arrays(inner)


def test_only_the_first_of_many_errors_is_built() -> None:
    message = {"role": "user", "content": [{"type": "text"}] * 1000, **{f"k{i}": 1 for i in range(200)}}
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate({"model": "m", "messages": [message] * 4})
    assert caught.value.error_count() < 256


async def test_a_text_longer_than_any_context_is_not_sent(engine: FakeEngine) -> None:
    text = body(messages=f"[{said(chr(34) + 'a' * 2**24 + chr(34))}]")
    async with gateway(engine) as client:
        response = await client.post("/v1/chat/completions", content=text, headers=JSON)
    sentence = assert_error(response, 400, "messages", "context_length_exceeded")
    assert re.search("rompt is too long.*maximum context length is.*16,777,216", sentence)
    assert engine.asked == []
