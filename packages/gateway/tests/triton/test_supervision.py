"""Finding out that Triton or the model has failed while a stream is silent."""

import asyncio

import pytest
from packages.gateway.tests.conftest import END, INFO, Pause, until
from packages.gateway.tests.triton.conftest import ASK, FakeTriton, Step, answer, is_describe

import gemma_gateway.triton_server as subject
from gemma_gateway.triton_client import TritonClient
from gemma_wire import Chunk, Unavailable

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(subject, "CHECK_SECONDS", 1.5)


async def test_a_dead_model_is_noticed_while_its_stream_is_silent(
    engine: TritonClient, triton: FakeTriton
) -> None:
    triton.script = [Chunk(text="a"), asyncio.Event()]
    triton.described = ["Stub process 'gemma3n_0_0' is not healthy."]
    chunks = engine.generate(ASK, "")
    await anext(chunks)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="not healthy"):
            await anext(chunks)
    await until(lambda: triton.running == 0, seconds=1)


async def test_health_checks_do_not_hide_a_dead_model(engine: TritonClient, triton: FakeTriton) -> None:
    """The responses to health checks do not count as activity of the stream."""
    triton.script = [asyncio.Event()]
    triton.described = ["Stub process 'gemma3n_0_0' is not healthy."]
    task = asyncio.create_task(answer(engine))
    async with asyncio.timeout(5):
        while not task.done():
            with pytest.raises(Unavailable):
                await engine.describe()
            await asyncio.sleep(0.01)
    assert isinstance(task.exception(), Unavailable)


async def test_a_server_that_hangs_is_noticed(engine: TritonClient, triton: FakeTriton) -> None:
    triton.script = [asyncio.Event()]
    triton.described = [asyncio.Event()]
    triton.live = [asyncio.Event()]
    async with asyncio.timeout(5):
        results = await asyncio.gather(answer(engine), answer(engine), return_exceptions=True)
    assert [str(result) for result in results] == ["Triton does not respond"] * 2


@pytest.mark.parametrize("described", [[asyncio.Event()], [INFO], ["some trouble of its own"]])
async def test_a_busy_model_is_not_considered_dead(
    engine: TritonClient, triton: FakeTriton, described: list[Step]
) -> None:
    """Silence alone is not a failure: a long prompt takes time."""
    gate = asyncio.Event()
    triton.script = [gate, END]
    triton.described = described
    task = asyncio.create_task(answer(engine))
    await until(lambda: sum(is_describe(request) for request in triton.asked) >= 2)
    gate.set()
    assert await task == [END]


async def test_an_active_server_is_not_checked(
    engine: TritonClient, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the stream takes longer than ``SILENCE_SECONDS``."""
    monkeypatch.setattr(subject, "SILENCE_SECONDS", 1.0)
    triton.script = [step for _ in range(50) for step in (Pause(0.05), Chunk(text="a"))]
    triton.script.append(END)
    triton.described = ["not healthy"]
    assert len(await answer(engine)) == 51
    assert not any(is_describe(request) for request in triton.asked)
