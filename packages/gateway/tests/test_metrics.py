"""Prometheus metrics."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from packages.gateway.tests.conftest import END, FakeEngine, chat, post, until
from prometheus_client.parser import text_string_to_metric_families

import gemma_wire as wire
from gemma_wire import Chunk, Timings, Usage

Value = Callable[..., float]


async def read(client: httpx.AsyncClient) -> Value:
    """The value of a series, 0 if there is none."""
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(response.text))
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    return lambda name, **labels: samples.get((f"gemma_api_{name}", frozenset(labels.items())), 0)


async def test_requests(client: httpx.AsyncClient) -> None:
    await post(client, chat())
    await post(client, chat(temperature=9))
    await client.get("/v1/models/nope")
    await client.request("BREW", "/coffee/1")
    value = await read(client)
    name = "http_requests_total"
    assert value(name, method="POST", handler="/v1/chat/completions", status="200") == 1
    assert value(name, method="POST", handler="/v1/chat/completions", status="400") == 1
    assert value(name, method="GET", handler="/v1/models/{name}", status="404") == 1
    assert value(name, method="other", handler="none", status="404") == 1
    assert value("http_request_duration_seconds_count", handler="/v1/chat/completions") == 2
    assert value("http_requests_in_flight") == 1  # this one


async def test_errors_by_code(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Each error is counted once, as a response or in a stream."""
    await client.get("/nope")
    await client.post("/v1/chat/completions", content=b"x" * 3_000_000)
    engine.script = [wire.Overloaded("full")]
    await post(client, chat())
    engine.script = [Chunk(text="a"), wire.Unavailable("lost")]
    await post(client, chat(stream=True))
    engine.script = [Chunk(text="a"), ValueError("a bug")]
    await post(client, chat(stream=True))
    await post(client, chat())
    value = await read(client)
    codes = (
        "unknown_url",
        "request_too_large",
        "rate_limit_exceeded",
        "service_unavailable",
        "internal_error",
    )
    assert [value("errors_total", code=code) for code in codes] == [1, 1, 1, 1, 2]
    reasons = ("overloaded", "unavailable", "internal_error")
    assert [value("request_aborted_total", reason=reason) for reason in reasons] == [1, 1, 2]


@pytest.mark.parametrize("stream", [True, False])
async def test_tokens_and_times(client: httpx.AsyncClient, engine: FakeEngine, stream: bool) -> None:
    usage = Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=4)
    timings = Timings(queued=0.5, prefill=0.25, decode=2)
    pieces = [Chunk(text=text) for text in "abc"]
    engine.script = [*pieces, Chunk(finish_reason="length", usage=usage, timings=timings)]
    await post(client, chat(stream=stream))
    value = await read(client)
    assert value("prompt_tokens_total") == value("request_prompt_tokens_sum") == 7
    assert value("prefix_cache_hits_total") == 4
    assert value("generation_tokens_total") == value("request_generation_tokens_sum") == 3
    assert value("request_success_total", finished_reason="length") == 1
    assert value("time_to_first_token_seconds_count") == 1
    assert value("inter_token_latency_seconds_count") == 2
    assert value("request_time_per_output_token_seconds_count") == 1
    assert value("e2e_request_latency_seconds_count") == 1
    assert value("time_to_first_token_seconds_sum") <= value("e2e_request_latency_seconds_sum")
    assert value("request_queue_time_seconds_sum") == 0.5
    assert value("request_prefill_time_seconds_sum") == 0.25
    assert value("request_decode_time_seconds_sum") == 2
    assert value("num_requests_running") == 0


async def test_inter_token_latency_is_per_choice(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    ends = [Chunk(index=index, finish_reason="stop") for index in range(2)]
    pieces = [Chunk(index=index, text="a") for index in (0, 1, 0, 1)]
    engine.script = [*pieces, ends[0], ends[1].model_copy(update={"usage": END.usage})]
    await post(client, chat(n=2))
    value = await read(client)
    assert value("inter_token_latency_seconds_count") == 2
    assert value("request_success_total", finished_reason="stop") == 2


async def test_running_and_cancelled(app: FastAPI, client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [asyncio.Event()]
    asking = asyncio.create_task(post(client, chat()))
    await until(lambda: engine.running == 1)
    value = await read(client)
    assert (value("num_requests_running"), value("http_requests_in_flight")) == (1, 2)
    app.state.running.end()
    assert (await asking).status_code == 503
    value = await read(client)
    assert (value("num_requests_running"), value("http_requests_in_flight")) == (0, 1)
    assert value("request_aborted_total", reason="cancelled") == 1


async def test_the_process_and_the_format(client: httpx.AsyncClient) -> None:
    openmetrics = "application/openmetrics-text; version=1.0.0"
    response = await client.get("/metrics", headers={"Accept": openmetrics})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")
    assert "process_resident_memory_bytes" in response.text
