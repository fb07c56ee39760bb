"""Several servers: which one gets a request, and what happens when one refuses, fails, joins or leaves."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from packages.gateway.tests.conftest import END, until
from packages.gateway.tests.triton.conftest import FakeTriton, connected, listening

from gemma_gateway import server_pool
from gemma_gateway.routing import circuit_breaker
from gemma_gateway.triton_client import TritonClient
from gemma_wire import Chunk, Message, Overloaded, Request, Unavailable

FULL = Overloaded("256 requests are waiting already").to_line()
DEAD = "Stub process 'gemma3n_0_0' is not healthy."


def conversation(number: int) -> Request:
    return Request(messages=(Message(role="user", content=f"Question {number}"),), stream=True)


async def ask(engine: TritonClient, number: int = 0) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(conversation(number), "")]


class Servers:
    """Fake servers that listen, and a client of all of them."""

    def __init__(self, *tritons: FakeTriton) -> None:
        self.tritons, self._stack = tritons, AsyncExitStack()

    async def __aenter__(self) -> TritonClient:
        self.targets = [
            (await self._stack.enter_async_context(listening(triton)))[0] for triton in self.tritons
        ]
        return await self._stack.enter_async_context(connected(*self.targets))

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()


def generations(triton: FakeTriton) -> int:
    return sum(b'"describe"' not in b"".join(request.raw_input_contents) for request in triton.asked)


async def test_a_conversation_stays_on_its_server_and_others_are_spread() -> None:
    tritons = FakeTriton(), FakeTriton()
    async with Servers(*tritons) as engine:
        for number in range(20):
            for _ in range(2):
                before = [generations(triton) for triton in tritons]
                await ask(engine, number)
                changed = [generations(triton) - count for triton, count in zip(tritons, before, strict=True)]
                assert sum(changed) == 1
        assert all(generations(triton) % 2 == 0 and generations(triton) >= 8 for triton in tritons)


async def test_health_checks_do_not_change_who_is_next() -> None:
    tritons = FakeTriton(), FakeTriton()
    async with Servers(*tritons) as engine:
        for _ in range(4):
            await ask(engine)
            await engine.describe()
        assert sorted(map(generations, tritons)) == [0, 4]


async def test_a_full_server_is_skipped_before_the_first_chunk() -> None:
    full, other = FakeTriton(), FakeTriton()
    full.script = [FULL]
    async with Servers(full, other) as engine:
        for number in range(10):
            assert (await ask(engine, number))[-1] == END
        assert generations(full) == 1  # it is avoided for a while after it has refused a request


async def test_all_servers_full_is_an_overload_even_if_another_is_down() -> None:
    one, two = FakeTriton(), FakeTriton()
    one.script, two.script = [FULL], [DEAD]
    async with Servers(one, two) as engine:
        with pytest.raises(Overloaded):
            await ask(engine)


async def test_a_failed_server_is_left_alone_until_it_responds_to_a_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_SECONDS", 0.3)
    monkeypatch.setattr(circuit_breaker, "LONGEST_SECONDS", 0.3)
    sick, other = FakeTriton(), FakeTriton()
    described = sick.described
    sick.script = sick.described = [DEAD]
    async with Servers(sick, other) as engine:
        for number in range(12):
            await ask(engine, number)
        assert generations(sick) == circuit_breaker.FAILURES
        sick.script, sick.described = [END], described
        await asyncio.sleep(0.8)  # a probe
        for number in range(12, 24):
            await ask(engine, number)
        assert generations(sick) > circuit_breaker.FAILURES


async def test_many_conversations_at_once_are_balanced() -> None:
    tritons = FakeTriton(), FakeTriton(), FakeTriton()
    gate = asyncio.Event()
    for triton in tritons:
        triton.script = [Chunk(text="a"), gate, END]
    async with Servers(*tritons) as engine:
        tasks = [asyncio.create_task(ask(engine, number)) for number in range(48)]
        await until(lambda: sum(map(generations, tritons)) == 48)
        assert max(map(generations, tritons)) <= 21  # 1.25 x 48 / 3, and one more
        gate.set()
        await asyncio.gather(*tasks)


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Sets what the name ``triton`` resolves to."""
    known: list[str] = []

    async def getaddrinfo(_: Any, host: str, port: int, **__: Any) -> list[Any]:
        if not known:
            raise OSError("no address")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known]

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", getaddrinfo)
    monkeypatch.setattr(server_pool, "REFRESH_SECONDS", 0.05)

    def set_to(now: list[str]) -> None:
        known[:] = now

    return set_to


async def test_servers_join_and_leave_while_the_gateway_runs(addresses: Callable[[list[str]], None]) -> None:
    """All addresses reach one server here; only the connections count."""
    triton, gate = FakeTriton(), asyncio.Event()
    triton.script = [Chunk(text="a"), gate, END]
    async with AsyncExitStack() as stack:
        target, _ = await stack.enter_async_context(listening(triton, "127.0.0.2", "127.0.0.3"))
        port = target.rpartition(":")[2]
        engine = await stack.enter_async_context(connected(f"dns:///triton:{port}"))
        with pytest.raises(Unavailable, match="has no address"):
            await ask(engine)
        addresses(["127.0.0.1"])
        chunks = engine.generate(conversation(1), "")
        await anext(chunks)
        addresses(["127.0.0.2", "127.0.0.3"])
        await until(lambda: set(engine._pool._servers) == {f"ipv4:127.0.0.{n}:{port}" for n in (2, 3)})
        addresses([])  # a failed lookup changes nothing
        await asyncio.sleep(0.2)
        assert len(engine._pool._servers) == 2
        gate.set()
        async with aclosing(chunks):  # the response of the server that has left is completed
            assert [chunk async for chunk in chunks] == [END]
        assert (await ask(engine, 2))[-1] == END
