"""Models and health: the model's description and its cache."""

import asyncio
from typing import Any

import httpx
import pytest
from openai.types import Model
from packages.gateway.tests import openai_document
from packages.gateway.tests.conftest import INFO, MODEL, FakeEngine, assert_error, chat, post

from gemma_gateway.errors import ModelNotFound
from gemma_gateway.model_registry import HEALTH_MAX_AGE, REQUEST_MAX_AGE, ModelRegistry
from gemma_gateway.response_base import system_fingerprint
from gemma_wire import ModelInfo, Unavailable

OWN = {
    "id": MODEL,
    "object": "model",
    "created": INFO.created,
    "owned_by": "google",
    "root": MODEL,
    "parent": None,
    "max_model_len": INFO.context_length,
}


async def test_list(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    assert body == {"object": "list", "data": [OWN, OWN | {"id": "gemma3n"}]}
    for model in body["data"]:
        Model.model_validate(model, strict=True)


@pytest.mark.parametrize("name", [MODEL, "gemma3n", MODEL.replace("/", "%2F")])
async def test_retrieve(client: httpx.AsyncClient, name: str) -> None:
    response = await client.get(f"/v1/models/{name}")
    assert response.status_code == 200
    assert response.json() == OWN | {"id": name.replace("%2F", "/")}


@pytest.mark.parametrize("name", ["gpt-4o", "", "google", "gemma3n/"])
async def test_retrieve_unknown(client: httpx.AsyncClient, name: str) -> None:
    assert_error(await client.get(f"/v1/models/{name}"), 404, "model", "model_not_found")


@pytest.mark.parametrize("name", [MODEL, "gemma3n"])
async def test_both_names_are_accepted(client: httpx.AsyncClient, name: str) -> None:
    response = await post(client, chat() | {"model": name})
    assert response.json()["model"] == MODEL


async def test_variants(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Nested models: they are listed, and requested by their names."""
    small = "google/gemma-3n-E2B-it"
    engine.info = INFO.model_copy(update={"variants": (small,)})
    body = (await client.get("/v1/models")).json()
    assert [model["id"] for model in body["data"]] == [MODEL, "gemma3n", small]
    openai_document.assert_valid(body, "ListModelsResponse")
    assert (await client.get(f"/v1/models/{small}")).json() == OWN | {"id": small, "root": small}
    for name, answers, option in ((small, small, small), (MODEL, MODEL, None), ("gemma3n", MODEL, None)):
        assert (await post(client, chat() | {"model": name})).json()["model"] == answers
        assert engine.asked[-1].options.model == option
        response = await client.post("/v1/completions", json={"model": name, "prompt": "x"})
        assert response.json()["model"] == answers
        assert engine.asked[-1].options.model == option
        await client.post("/tokenize", json={"model": name, "prompt": "x"})
        assert engine.asked[-1].options.model == option


@pytest.mark.parametrize(
    "path", ["/v1/models", f"/v1/models/{MODEL}", "/health", "/health/live", "/health/ready"]
)
async def test_head(url: str, path: str) -> None:
    """Like GET, without the body."""
    async with httpx.AsyncClient(base_url=url) as client:
        get, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["content-type"] == get.headers["content-type"]


def test_the_fingerprint_depends_on_model_and_engine() -> None:
    def changed(**update: Any) -> str:
        return system_fingerprint(INFO.model_copy(update=update))

    assert system_fingerprint(INFO).startswith("fp_")
    assert changed(running=5, created=1) == system_fingerprint(INFO)
    assert (
        len(
            {
                system_fingerprint(INFO),
                changed(dtype="bfloat16"),
                changed(device="cuda:0"),
                changed(model="m"),
            }
        )
        == 4
    )


async def test_a_folder_named_like_the_alias_is_listed_once(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.info = INFO.model_copy(update={"model": "gemma3n"})
    body = (await client.get("/v1/models")).json()
    assert [(model["id"], model["owned_by"]) for model in body["data"]] == [("gemma3n", "local")]


async def test_health(client: httpx.AsyncClient) -> None:
    response = await client.get("/health")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", **INFO.model_dump(mode="json")}
    assert {"model", "device", "running", "waiting"} <= response.json().keys()
    for path in ("/health/live", "/health/ready"):
        assert (await client.get(path)).json() == {"status": "ok"}


async def test_health_while_the_model_cannot_answer(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.info = Unavailable("Triton cannot be reached")
    for path in ("/health", "/health/ready", "/v1/models", f"/v1/models/{MODEL}"):
        response = await client.get(path)
        assert assert_error(response, 503, None, "service_unavailable") == "Triton cannot be reached"
        assert int(response.headers["retry-after"]) > 0
    response = await post(client, chat())
    assert_error(response, 503, None, "service_unavailable")
    assert "retry-after" in response.headers
    assert (await client.get("/health/live")).status_code == 200


async def test_a_request_uses_the_cached_description(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for _ in range(5):
        await post(client, chat())
    assert (engine.described, len(engine.asked)) == (1, 5)


async def test_the_description_is_refreshed_after_a_failure(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await post(client, chat())
    engine.script = [Unavailable("lost")]
    await post(client, chat())
    engine.info = INFO.model_copy(update={"model": "google/gemma-3n-E2B-it"})
    engine.script = FakeEngine().script
    assert (await post(client, chat())).json()["model"] == "google/gemma-3n-E2B-it"


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


async def test_maximum_ages() -> None:
    engine, clock = FakeEngine(), Clock()
    models = ModelRegistry(engine, clock)
    for time, max_age, described in [
        (0, HEALTH_MAX_AGE, 1),
        (HEALTH_MAX_AGE, HEALTH_MAX_AGE, 1),
        (HEALTH_MAX_AGE + 0.1, HEALTH_MAX_AGE, 2),
        (REQUEST_MAX_AGE, REQUEST_MAX_AGE, 2),
    ]:
        clock.time = time
        assert await models.info(max_age) == INFO
        assert engine.described == described


async def test_unknown_names_refresh_at_most_once_per_second() -> None:
    engine, clock = FakeEngine(), Clock()
    models = ModelRegistry(engine, clock)
    for _ in range(3):
        with pytest.raises(ModelNotFound):
            await models.resolve("other/model")
    assert engine.described == 1
    clock.time = 2
    engine.info = INFO.model_copy(update={"model": "other/model"})
    assert (await models.resolve("other/model")).info.model == "other/model"


async def test_concurrent_calls_share_one_refresh() -> None:
    engine = FakeEngine()
    models = ModelRegistry(engine)
    assert await asyncio.gather(*(models.info(HEALTH_MAX_AGE) for _ in range(9))) == [INFO] * 9
    assert engine.described == 1


async def test_failures_are_not_cached() -> None:
    engine = FakeEngine()
    engine.info = Unavailable("down")
    models = ModelRegistry(engine)
    results = await asyncio.gather(*(models.info(HEALTH_MAX_AGE) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    engine.info = INFO
    assert await models.info(HEALTH_MAX_AGE) == INFO
    assert engine.described == 2


async def test_a_cancelled_caller_does_not_cancel_the_refresh() -> None:
    """The others still get the result; a failure that nobody awaits is not logged by asyncio."""

    class Slow(FakeEngine):
        async def describe(self) -> ModelInfo:
            await gate.wait()
            return await super().describe()

    gate, engine = asyncio.Event(), Slow()
    models = ModelRegistry(engine)
    left, stayed = (asyncio.create_task(models.info(HEALTH_MAX_AGE)) for _ in range(2))
    await asyncio.sleep(0)
    left.cancel()
    gate.set()
    assert await stayed == INFO
    assert engine.described == 1
    assert left.cancelled()


class Held(FakeEngine):
    """Describes itself only while ``gate`` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def describe(self) -> ModelInfo:
        await self.gate.wait()
        return await super().describe()


async def test_requests_use_the_old_description_during_a_refresh() -> None:
    """A refresh is in progress, because of a health check or the maximum age, and does not finish."""
    engine, clock = Held(), Clock()
    models = ModelRegistry(engine, clock)
    await models.info(HEALTH_MAX_AGE)
    engine.gate.clear()
    for age in (HEALTH_MAX_AGE + 1, REQUEST_MAX_AGE + 1, 100 * REQUEST_MAX_AGE):
        clock.time = age
        check = asyncio.create_task(models.info(HEALTH_MAX_AGE))
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            assert (await models.resolve("gemma3n")).info is INFO
            assert await models.cached() is INFO
        check.cancel()
    engine.info = changed = INFO.model_copy(update={"model": "other/model"})
    engine.gate.set()
    assert await models.info(HEALTH_MAX_AGE) == await models.cached() == changed
    assert engine.described == 2


async def test_an_old_description_is_refreshed_in_the_background() -> None:
    engine, clock = FakeEngine(), Clock()
    models = ModelRegistry(engine, clock)
    await models.cached()
    clock.time = REQUEST_MAX_AGE + 1
    engine.info = INFO.model_copy(update={"model": "other/model"})
    assert (await models.cached()).model == MODEL
    await asyncio.sleep(0.01)
    assert (await models.cached()).model == "other/model"


async def test_a_failed_health_check_fails_no_request(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Busy for a moment, or failed without a timely description: the request itself finds out."""
    await post(client, chat())
    engine.info, engine.script = Unavailable("the model did not respond in time"), [Unavailable("lost")]
    await post(client, chat())  # the model is asked again next time, and does not answer
    engine.script = FakeEngine().script
    assert_error(await client.get("/health/ready"), 503, None, "service_unavailable")
    assert (await post(client, chat())).status_code == 200
    assert (await client.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/models/gemma3n%0a", "/v1/models%0a", "/health/live%0A", "/v1/models/gemma3n%0d%0a", "/%00"]
)
async def test_a_path_with_a_line_break_is_unknown(client: httpx.AsyncClient, path: str) -> None:
    assert_error(await client.get(path), 404, None, "unknown_url")
