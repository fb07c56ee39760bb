"""Chunks of several responses that arrive in one stream."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from packages.gateway.tests.conftest import END, until
from packages.gateway.tests.triton.conftest import FakeTriton, answer, options

from gemma_gateway.triton_client import TritonClient
from gemma_wire import Chunk, ChunkBatch, EngineFailure, InvalidRequest, ReceivedChunk, Unavailable

Answer = asyncio.Task[list[Chunk]]


def part(receiver: int, number: int) -> ReceivedChunk:
    return ReceivedChunk(receiver, Chunk(text=f"{receiver}.{number} ", number=number))


def last(number: int) -> Chunk:
    return END.model_copy(update={"number": number})


class Two:
    """Two responses that are awaited, and what the model calls them."""

    def __init__(self, triton: FakeTriton, engine: TritonClient) -> None:
        self.triton, self.go = triton, asyncio.Event()
        triton.script = [self.go, last(2)]
        self.answers = [asyncio.create_task(answer(engine)) for _ in range(2)]

    async def ready(self) -> None:
        await until(lambda: len(self.triton.asked) == 2 and self.triton.subscribed == 1)
        self.receivers = [options(request).get("receiver", 0) for request in self.triton.asked]

    async def send(self, *numbers: int) -> None:
        for number in numbers:
            chunks = tuple(part(receiver, number) for receiver in self.receivers)
            await self.triton.batches.put(ChunkBatch(chunks=chunks))


@pytest.fixture
async def two(triton: FakeTriton, engine: TritonClient) -> AsyncIterator[Two]:
    two = Two(triton, engine)
    await two.ready()
    yield two
    for task in two.answers:
        task.cancel()
    await asyncio.gather(*two.answers, return_exceptions=True)


async def texts(answers: list[Answer]) -> list[str]:
    return sorted(["".join(chunk.text for chunk in chunks) for chunks in await asyncio.gather(*answers)])


async def test_one_response_needs_no_subscription(engine: TritonClient, triton: FakeTriton) -> None:
    await answer(engine)
    await answer(engine)
    assert triton.subscriptions == []


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)])
async def test_chunks_of_several_responses_come_in_order(two: Two, numbers: tuple[int, int]) -> None:
    await two.send(*numbers)
    two.go.set()
    assert await texts(two.answers) == ["0.0 0.1 ", "1.0 1.1 "]


async def test_the_last_chunk_waits_for_those_before_it(two: Two) -> None:
    two.go.set()
    await two.send(1)
    done, _ = await asyncio.wait(two.answers, timeout=0.2)
    assert not done
    await two.send(0)
    assert await texts(two.answers) == ["0.0 0.1 ", "1.0 1.1 "]


async def test_chunks_come_both_ways(triton: FakeTriton, engine: TritonClient) -> None:
    two = Two(triton, engine)
    triton.script = [Chunk(text="own ", number=0), two.go, last(2)]
    await two.ready()
    await two.send(1)
    two.go.set()
    assert await texts(two.answers) == ["own 0.1 ", "own 1.1 "]


async def test_the_subscription_is_closed_with_the_last_response(two: Two) -> None:
    await two.send(0, 1)
    two.go.set()
    await asyncio.gather(*two.answers)
    await until(lambda: two.triton.subscribed == 0, seconds=1)


async def test_each_subscription_has_a_name_of_its_own(
    two: Two, triton: FakeTriton, engine: TritonClient
) -> None:
    await two.send(0, 1)
    two.go.set()
    await asyncio.gather(*two.answers)
    triton.asked.clear()
    again = Two(triton, engine)
    await until(lambda: len(triton.subscriptions) == 2)
    for task in again.answers:
        task.cancel()
    await asyncio.gather(*again.answers, return_exceptions=True)
    assert len(set(triton.subscriptions)) == 2
    await until(lambda: triton.subscribed == 0 and triton.running == 0, seconds=1)


async def test_a_response_that_is_cancelled_does_not_end_the_others(two: Two) -> None:
    left, stays = two.answers
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    await two.send(0, 1)  # for the one that has left too
    two.go.set()
    assert (await stays)[-1] == last(2)


@pytest.mark.parametrize("step", [None, Unavailable("the stub is not healthy").to_line()])
async def test_the_end_of_the_subscription_ends_all(two: Two, step: str | None) -> None:
    await two.send(0)
    await two.triton.batches.put(step)
    for task in two.answers:
        with pytest.raises(Unavailable):
            await task


async def test_a_model_that_refuses_subscriptions_sends_everything_in_the_own_streams(
    triton: FakeTriton, engine: TritonClient
) -> None:
    two = Two(triton, engine)
    triton.script = [Chunk(text="own ", number=0), two.go, last(1)]
    await two.ready()
    await triton.batches.put(InvalidRequest("64 are open", "options.subscription").to_line())
    await until(lambda: triton.subscribed == 0)
    two.go.set()
    assert await texts(two.answers) == ["own ", "own "]


async def test_after_some_time_new_responses_use_another_subscription(
    two: Two, triton: FakeTriton, engine: TritonClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the old one is closed with its responses, although others are always awaited."""
    monkeypatch.setattr("gemma_gateway.subscription.MAX_AGE_SECONDS", 0.0)
    triton.asked.clear()
    later = [asyncio.create_task(answer(engine)) for _ in range(2)]
    await until(lambda: len(triton.subscriptions) == 2 and len(triton.asked) == 2)
    for task in two.answers:
        task.cancel()
    await until(lambda: triton.subscribed == 1, seconds=1)
    await asyncio.gather(*two.answers, return_exceptions=True)
    for task in later:
        task.cancel()
    await asyncio.gather(*later, return_exceptions=True)
    await until(lambda: triton.subscribed == 0, seconds=1)
    assert len(set(triton.subscriptions)) == 2


async def test_an_error_comes_in_the_own_stream(triton: FakeTriton, engine: TritonClient) -> None:
    two = Two(triton, engine)
    triton.script = [two.go, EngineFailure("a step failed").to_line()]
    await two.ready()
    await two.send(0)
    two.go.set()
    for task in two.answers:
        with pytest.raises(EngineFailure, match="a step failed"):
            await task


async def test_a_stream_that_closes_early(triton: FakeTriton, engine: TritonClient) -> None:
    two = Two(triton, engine)
    triton.script = [two.go]
    await two.ready()
    await two.send(0)
    two.go.set()
    for task in two.answers:
        with pytest.raises(Unavailable, match="before the response was complete"):
            await task
