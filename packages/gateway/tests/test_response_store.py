"""Stored responses: what continues them, reads them, and deletes them."""

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, assert_error, gateway, until
from packages.gateway.tests.openai_document import assert_valid
from packages.gateway.tests.response_helpers import CALL, WEATHER, ask, end, read_events, respond

from gemma_gateway.response_store import ResponseStore, StoredResponse
from gemma_wire import Chunk, EngineFailure

DAY = 86_400


@pytest.fixture
async def stored(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(engine, store=tmp_path / "store") as client:
        yield client


def sent(engine: FakeEngine) -> list[tuple[str, Any]]:
    return [(message.role, message.content) for message in engine.asked[-1].messages or ()]


async def wait_for(client: httpx.AsyncClient, response_id: str, status: str) -> Any:
    async with asyncio.timeout(10):
        while True:
            body = (await client.get(f"/v1/responses/{response_id}")).json()
            if body["status"] == status:
                assert_valid(body, "Response")
                return body
            await asyncio.sleep(0.01)


async def test_a_response_continues_another(stored: httpx.AsyncClient, engine: FakeEngine) -> None:
    first = await respond(stored, ask("One", instructions="Be brief."))
    assert first["store"] is True
    second = await respond(stored, ask("Two", previous_response_id=first["id"]))
    assert second["previous_response_id"] == first["id"]
    response = await stored.post(
        "/v1/responses", json=ask("Three", previous_response_id=second["id"], stream=True)
    )
    assert read_events(response.text)[-1]["type"] == "response.completed"
    said = [
        (role, content if isinstance(content, str) else content[0].text) for role, content in sent(engine)
    ]
    reply = ("assistant", "Hello world")
    assert said == [("user", "One"), reply, ("user", "Two"), reply, ("user", "Three")]


async def test_a_result_continues_a_call(stored: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [*CALL, end("tool_calls")]
    first = await respond(stored, ask("Rome?", tools=[WEATHER]))
    engine.script = [Chunk(text="Sunny."), end()]
    output = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
    await respond(stored, ask([output], previous_response_id=first["id"]))
    assert [role for role, _ in sent(engine)] == ["user", "assistant", "tool"]
    response = await stored.post("/v1/responses", json=ask("And?", previous_response_id=first["id"]))
    assert_error(response, 400, "previous_response_id", "invalid_parameter_combination")


async def test_items_are_found_by_reference(stored: httpx.AsyncClient, engine: FakeEngine) -> None:
    first = await respond(stored, ask("One"))
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    await respond(
        stored, ask([{"role": "user", "content": "One"}, reference, {"role": "user", "content": "?"}])
    )
    assert [role for role, _ in sent(engine)] == ["user", "assistant", "user"]
    response = await stored.post("/v1/responses", json=ask([{"type": "item_reference", "id": "msg_0"}]))
    assert_error(response, 400, "input[0].id", "item_not_found")


async def test_a_stored_response_is_read_and_deleted(stored: httpx.AsyncClient) -> None:
    first = await respond(stored, ask("One", metadata={"a": "b"}, text={"format": {"type": "json_object"}}))
    path = f"/v1/responses/{first['id']}"
    assert (await stored.get(path)).json() == first
    deleted = await stored.delete(path)
    assert deleted.json() == {"id": first["id"], "object": "response", "deleted": True}
    for response in (
        await stored.get(path),
        await stored.delete(path),
        await stored.get(f"{path}/input_items"),
    ):
        assert_error(response, 404, "response_id", "response_not_found")
    response = await stored.post("/v1/responses", json=ask(previous_response_id=first["id"]))
    assert_error(response, 400, "previous_response_id", "previous_response_not_found")


async def test_the_input_is_listed_in_pages(stored: httpx.AsyncClient) -> None:
    image = {"type": "input_text", "text": "two"}
    items = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "reply"},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": [image]},
    ]
    first = await respond(stored, ask(items))
    path = f"/v1/responses/{first['id']}/input_items"
    page = (await stored.get(path, params={"order": "asc", "limit": 3})).json()
    assert_valid(page, "ResponseItemList")
    assert [item["type"] for item in page["data"]] == ["message", "message", "function_call"]
    assert page["has_more"]
    rest = (await stored.get(path, params={"order": "asc", "after": page["last_id"]})).json()
    assert [item["type"] for item in rest["data"]] == ["function_call_output"]
    assert not rest["has_more"]
    assert (await stored.get(path)).json()["data"][0] == rest["data"][0]
    for name, value in (("order", "up"), ("limit", "0"), ("limit", "x"), ("after", "nothing")):
        response = await stored.get(path, params={name: value})
        assert_error(response, 400, name, "invalid_value")


async def test_a_key_does_not_see_the_responses_of_another(engine: FakeEngine, tmp_path: Path) -> None:
    async with gateway(engine, store=tmp_path / "store", keys="one,two") as client:
        client.headers["authorization"] = "Bearer one"
        first = await respond(client, ask())
        client.headers["authorization"] = "Bearer two"
        path = f"/v1/responses/{first['id']}"
        for response in (
            await client.get(path),
            await client.delete(path),
            await client.post(f"{path}/cancel"),
        ):
            assert_error(response, 404, "response_id", "response_not_found")
        response = await client.post("/v1/responses", json=ask(previous_response_id=first["id"]))
        assert_error(response, 400, "previous_response_id", "previous_response_not_found")
        reference = ask([{"type": "item_reference", "id": first["output"][0]["id"]}])
        assert (await client.post("/v1/responses", json=reference)).status_code == 400


async def test_store_false_stores_nothing(stored: httpx.AsyncClient) -> None:
    response = await respond(stored, ask(store=False))
    assert response["store"] is False
    assert (await stored.get(f"/v1/responses/{response['id']}")).status_code == 404
    refused = await stored.post("/v1/responses", json=ask(store=False, background=True))
    assert_error(refused, 400, "background", None)


async def test_a_response_in_the_background(stored: httpx.AsyncClient, engine: FakeEngine) -> None:
    goes_on = asyncio.Event()
    engine.script = [Chunk(text="Hello"), goes_on, Chunk(text=" world"), end()]
    queued = await respond(stored, ask(background=True))
    assert (queued["status"], queued["background"], queued["output"]) == ("queued", True, [])
    await wait_for(stored, queued["id"], "in_progress")
    goes_on.set()
    body = await wait_for(stored, queued["id"], "completed")
    assert body["output"][0]["content"][0]["text"] == "Hello world"
    cancelled = (await stored.post(f"/v1/responses/{queued['id']}/cancel")).json()
    assert cancelled == body


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_a_response_in_the_background_is_cancelled(
    stored: httpx.AsyncClient, engine: FakeEngine, how: str
) -> None:
    engine.script = [Chunk(text="Hello"), asyncio.Event()]
    queued = await respond(stored, ask(background=True))
    path = f"/v1/responses/{queued['id']}"
    await wait_for(stored, queued["id"], "in_progress")
    assert engine.running == 1
    if how == "cancel":
        body = (await stored.post(f"{path}/cancel")).json()
        assert body["status"] == "cancelled"
        assert (await stored.get(path)).json() == body
    else:
        assert (await stored.delete(path)).status_code == 200
        assert (await stored.get(path)).status_code == 404
    assert engine.running == 0


async def test_a_failure_in_the_background_is_stored(stored: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [Chunk(text="Hello"), EngineFailure("broken")]
    queued = await respond(stored, ask(background=True))
    body = await wait_for(stored, queued["id"], "failed")
    assert body["error"]["code"] == "server_error"


async def test_the_background_has_limits(engine: FakeEngine, tmp_path: Path) -> None:
    engine.script = [Chunk(text="Hello"), asyncio.Event()]
    async with gateway(engine, store=tmp_path / "store", max_concurrent=1, request_seconds=1) as client:
        queued = await respond(client, ask(background=True))
        response = await client.post("/v1/responses", json=ask(background=True))
        assert_error(response, 429, None, "rate_limit_exceeded")
        body = await wait_for(client, queued["id"], "failed")
        assert "1 seconds" in body["error"]["message"]
        assert engine.running == 0


async def test_what_a_stop_interrupts_has_failed(engine: FakeEngine, tmp_path: Path) -> None:
    engine.script = [Chunk(text="Hello"), asyncio.Event()]
    async with gateway(engine, store=tmp_path / "store") as client:
        queued = await respond(client, ask(background=True))
        await wait_for(client, queued["id"], "in_progress")
    await until(lambda: engine.running == 0)
    async with gateway(engine, store=tmp_path / "store") as client:
        body = await wait_for(client, queued["id"], "failed")
        assert body["error"]["code"] == "server_error"


async def test_only_complete_background_responses_can_be_streamed_or_cancelled(
    stored: httpx.AsyncClient,
) -> None:
    first = await respond(stored, ask())
    path = f"/v1/responses/{first['id']}"
    assert_error(await stored.post(f"{path}/cancel"), 400, "response_id", None)
    response = await stored.get(path, params={"stream": "true"})
    assert_error(response, 400, "stream", "unsupported_parameter")
    both = await stored.post("/v1/responses", json=ask(background=True, stream=True))
    assert_error(both, 400, "background", "invalid_parameter_combination")


async def test_without_a_store_there_are_no_responses(client: httpx.AsyncClient) -> None:
    assert_error(await client.get("/v1/responses/resp_1"), 404, "response_id", "response_not_found")


def response(number: int, text: str = "") -> StoredResponse:
    output = [{"id": f"msg_{number}", "text": text}]
    return StoredResponse({"id": f"resp_{number}", "status": "completed", "output": output}, [])


async def ids(store: ResponseStore, count: int) -> list[int]:
    return [i for i in range(count) if await store.get("", f"resp_{i}") is not None]


async def test_old_responses_are_deleted(tmp_path: Path) -> None:
    now = [0.0]
    store = ResponseStore(tmp_path / "store", days=2, max_bytes=10**6, now=lambda: now[0])
    await store.open()
    for i in range(5):
        now[0] = i * DAY
        await store.put("", response(i))
    assert await ids(store, 5) == [2, 3, 4]
    assert await store.item("", "msg_0") is None
    await store.close()


async def test_the_oldest_responses_make_room(tmp_path: Path) -> None:
    now = [0.0]
    store = ResponseStore(tmp_path / "store", days=9, max_bytes=7000, now=lambda: now[0])
    await store.open()
    for i in range(6):
        now[0] = i
        await store.put("", response(i, "x" * 1000))
    assert await ids(store, 6) == [3, 4, 5]
    await store.close()
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o600
