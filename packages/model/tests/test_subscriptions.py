"""Chunks of several requests in one response."""

import threading
from dataclasses import dataclass, field

import pytest

from gemma_model.subscriptions import MAX_SUBSCRIPTIONS, SubscribedChannel, Subscriptions
from gemma_wire import Chunk, ChunkBatch, InvalidRequest, Usage, WireError

LAST = Chunk(finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=1))


@dataclass
class FakeChannel:
    chunks: list[Chunk] = field(default_factory=list)

    def send(self, chunk: Chunk, *, last: bool) -> None:
        assert (chunk.usage is not None) == last
        self.chunks.append(chunk)

    def fail(self, error: WireError) -> None:
        raise AssertionError(error)

    def close(self) -> None:
        raise AssertionError

    def cancelled(self) -> bool:
        return False


@dataclass
class FakeSubscriber:
    batches: list[ChunkBatch] = field(default_factory=list)
    closed: int = 0
    left: bool = False
    broken: bool = False

    def send(self, batch: ChunkBatch, *, last: bool) -> None:
        if self.broken:
            raise RuntimeError("the pipe is closed")
        assert not last
        assert not self.closed
        self.batches.append(batch)

    def close(self) -> None:
        self.closed += 1

    def cancelled(self) -> bool:
        return self.left

    def texts(self) -> list[list[tuple[int, str]]]:
        return [[(receiver, chunk.text) for receiver, chunk in batch.chunks] for batch in self.batches]


@pytest.fixture
def subscriptions() -> Subscriptions:
    return Subscriptions()


@pytest.fixture
def subscriber(subscriptions: Subscriptions) -> FakeSubscriber:
    subscriber = FakeSubscriber()
    subscriptions.open("x", subscriber)
    return subscriber


def channel(subscriptions: Subscriptions, receiver: int = 0) -> tuple[SubscribedChannel, FakeChannel]:
    own = FakeChannel()
    return SubscribedChannel(own, subscriptions, "x", receiver), own


def test_one_response_for_all_that_is_ready(subscriptions: Subscriptions, subscriber: FakeSubscriber) -> None:
    ways = [channel(subscriptions, receiver) for receiver in (7, 8)]
    for way, _ in ways:
        way.send(Chunk(text="a"), last=False)
        way.send(Chunk(text="b"), last=False)
    assert subscriber.batches == []
    subscriptions.flush()
    subscriptions.flush()
    assert subscriber.texts() == [[(7, "a"), (7, "b"), (8, "a"), (8, "b")]]
    assert all(own.chunks == [] for _, own in ways)


def test_the_last_chunk_comes_in_the_own_stream(
    subscriptions: Subscriptions, subscriber: FakeSubscriber
) -> None:
    way, own = channel(subscriptions)
    way.send(Chunk(text="a"), last=False)
    way.send(LAST, last=True)
    subscriptions.flush()
    assert [chunk.number for _, chunk in subscriber.batches[0].chunks] == [0]
    assert own.chunks == [LAST.model_copy(update={"number": 1})]


def test_without_an_open_subscription(subscriptions: Subscriptions) -> None:
    way, own = channel(subscriptions)
    way.send(Chunk(text="a"), last=False)
    subscriber = FakeSubscriber()
    subscriptions.open("x", subscriber)
    way.send(Chunk(text="b"), last=False)
    subscriptions.flush()
    subscriptions.close()
    way.send(Chunk(text="c"), last=False)
    assert [(chunk.text, chunk.number) for chunk in own.chunks] == [("a", 0), ("c", 2)]
    assert subscriber.texts() == [[(0, "b")]]


def test_a_subscription_whose_client_has_left_is_closed(
    subscriptions: Subscriptions, subscriber: FakeSubscriber
) -> None:
    subscriptions.close_cancelled()
    assert [subscriber.closed] == [0]
    subscriber.left = True
    subscriptions.close_cancelled()
    subscriptions.close_cancelled()
    assert [subscriber.closed] == [1]
    subscriptions.open("x", FakeSubscriber())


def test_a_subscription_that_breaks_is_closed(
    subscriptions: Subscriptions, subscriber: FakeSubscriber
) -> None:
    other = FakeSubscriber()
    subscriptions.open("y", other)
    subscriber.broken = True
    channel(subscriptions)[0].send(Chunk(text="a"), last=False)
    SubscribedChannel(FakeChannel(), subscriptions, "y", 0).send(Chunk(text="b"), last=False)
    subscriptions.flush()
    assert (subscriber.closed, other.closed, other.texts()) == (1, 0, [[(0, "b")]])


def test_a_name_is_used_once(subscriptions: Subscriptions, subscriber: FakeSubscriber) -> None:
    with pytest.raises(InvalidRequest, match="the name of an open subscription"):
        subscriptions.open("x", FakeSubscriber())
    assert not subscriber.closed


def test_the_number_of_subscriptions_is_limited(subscriptions: Subscriptions) -> None:
    for number in range(MAX_SUBSCRIPTIONS):
        subscriptions.open(str(number), FakeSubscriber())
    with pytest.raises(InvalidRequest, match="64 subscriptions are open"):
        subscriptions.open("x", FakeSubscriber())


def test_two_threads_that_flush(subscriptions: Subscriptions, subscriber: FakeSubscriber) -> None:
    def work(receiver: int) -> None:
        way, _ = channel(subscriptions, receiver)
        for _ in range(500):
            way.send(Chunk(text="a"), last=False)
            subscriptions.flush()

    threads = [threading.Thread(target=work, args=(receiver,)) for receiver in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers: dict[int, list[int | None]] = {0: [], 1: []}
    for batch in subscriber.batches:
        for receiver, chunk in batch.chunks:
            numbers[receiver].append(chunk.number)
    assert numbers == {0: list(range(500)), 1: list(range(500))}
