import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from gemma_model.completion_output import OutputOptions
from gemma_model.detokenizer import TokenBytes
from gemma_model.engine_types import EngineOutput
from gemma_model.response import ResponseStream
from gemma_model.response_sender import CHECK_ROUNDS, CHECKS_AT_ONCE, POLL_SECONDS, ResponseSender
from gemma_wire import Chunk, EngineFailure, Usage, WireError


@dataclass
class FakeChannel:
    sent: list[Chunk | WireError | None] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    left: bool = False
    broken: bool = False

    def send(self, chunk: Chunk, *, last: bool) -> None:
        if self.broken:
            raise RuntimeError("the pipe is closed")
        self._note(chunk, last)

    def fail(self, error: WireError) -> None:
        self._note(error, last=True)

    def close(self) -> None:
        self._note(None, last=True)

    def cancelled(self) -> bool:
        return self.left

    def _note(self, item: Chunk | WireError | None, last: bool) -> None:
        assert not self.ended.is_set(), "nothing may follow the last response"
        self.sent.append(item)
        if last:
            self.ended.set()


class FakeEngine:
    """Says what it is told to; a cancelled request ends at once."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[EngineOutput], None]] = []
        self.cancelled: list[int] = []
        self.cancelled_choices: list[tuple[int, int]] = []

    def submit(self, listen: Callable[[EngineOutput], None]) -> int:
        self.listeners.append(listen)
        return len(self.listeners) - 1

    def cancel(self, request_id: int, choice: int | None = None) -> None:
        if choice is None:
            self.cancelled.append(request_id)
        else:
            self.cancelled_choices.append((request_id, choice))
        self.listeners[request_id](EngineOutput(choice=choice or 0, finish="cancelled"))


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny / "tokenizer.json"))


@dataclass
class Bench:
    tokenizer: Tokenizer
    engine: FakeEngine
    sender: ResponseSender

    def open(
        self, channel: FakeChannel, stream: bool = True, stop: tuple[str, ...] = (), n: int = 1
    ) -> Callable[[EngineOutput], None]:
        options = OutputOptions(TokenBytes(self.tokenizer), prompt=(2, 2, 2), n=n, stop=stop)
        self.sender.start(ResponseStream(channel, stream, options), self.engine.submit)
        return self.engine.listeners[-1]

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.fixture
def bench(tokenizer: Tokenizer):  # type: ignore[no-untyped-def]
    engine = FakeEngine()
    bench = Bench(tokenizer, engine, ResponseSender(engine.cancel, update_metrics=lambda: None))
    yield bench
    bench.sender.close()


def _texts(channel: FakeChannel) -> list[str]:
    return [item.text for item in channel.sent if isinstance(item, Chunk)]


def test_metrics_are_shown_a_few_times_a_second_however_many_tokens_pass(tokenizer: Tokenizer) -> None:
    engine, shown, began = FakeEngine(), list[float](), time.monotonic()
    sender = ResponseSender(engine.cancel, update_metrics=lambda: shown.append(time.monotonic()))
    channel = FakeChannel()
    say = Bench(tokenizer, engine, sender).open(channel)
    for _ in range(100):
        say(EngineOutput((5,)))
        time.sleep(0.002)
    say(EngineOutput((5,), finish="length"))
    assert channel.ended.wait(5)
    sender.close()
    assert len(channel.sent) > 2 * len(shown)
    assert 2 <= len(shown) <= 2 + (time.monotonic() - began) / POLL_SECONDS


def test_a_stream_sends_each_step_and_ends_with_usage(bench: Bench) -> None:
    channel = FakeChannel()
    say = bench.open(channel)
    say(EngineOutput(bench.ids("Hello")))
    say(EngineOutput(bench.ids(" you"), finish="length"))
    assert channel.ended.wait(5)
    assert "".join(_texts(channel)) == "Hello you"
    tokens = len(bench.ids("Hello") + bench.ids(" you"))
    assert channel.sent[-1] == Chunk(
        text=_texts(channel)[-1],
        finish_reason="length",
        usage=Usage(prompt_tokens=3, completion_tokens=tokens),
    )


def test_without_stream_there_is_one_response(bench: Bench) -> None:
    channel = FakeChannel()
    say = bench.open(channel, stream=False)
    for piece in ("a", "b", "c"):
        say(EngineOutput(bench.ids(piece)))
    say(EngineOutput(finish="stop"))
    assert channel.ended.wait(5)
    assert _texts(channel) == ["abc"]


def test_a_stop_string_ends_the_response_and_the_generation(bench: Bench) -> None:
    channel = FakeChannel()
    say = bench.open(channel, stop=("b",))
    say(EngineOutput(bench.ids("a")))
    say(EngineOutput(bench.ids("b")))
    say(EngineOutput(bench.ids("c")))
    assert channel.ended.wait(5)
    assert "".join(_texts(channel)) == "a"
    last = channel.sent[-1]
    assert isinstance(last, Chunk)
    assert last.finish_reason == "stop"
    assert last.usage == Usage(prompt_tokens=3, completion_tokens=2)
    bench.sender.close()
    assert bench.engine.cancelled == [0]


def test_a_held_back_beginning_of_a_stop_string_is_sent_in_the_end(bench: Bench) -> None:
    channel = FakeChannel()
    say = bench.open(channel, stop=("STOP",))
    say(EngineOutput(bench.ids("xST"), finish="stop"))
    assert channel.ended.wait(5)
    assert "".join(_texts(channel)) == "xST"


def test_a_stop_string_ends_only_its_choice(bench: Bench) -> None:
    channel = FakeChannel()
    say = bench.open(channel, stop=("b",), n=2)
    say(EngineOutput(bench.ids("ab"), choice=0))
    say(EngineOutput(bench.ids("xyz"), choice=1, finish="stop"))
    assert channel.ended.wait(5)
    bench.sender.close()
    assert bench.engine.cancelled_choices == [(0, 0)]
    said = dict.fromkeys((0, 1), "")
    for item in channel.sent:
        assert isinstance(item, Chunk)
        said[item.index] += item.text
    assert said == {0: "a", 1: "xyz"}


def test_a_choice_that_ends_before_the_number_is_known_is_cancelled_when_it_is(bench: Bench) -> None:
    channel = FakeChannel()

    def submit(listen: Callable[[EngineOutput], None]) -> int:
        bench.engine.listeners.append(listen)
        listen(EngineOutput(bench.ids("b")))
        while not channel.sent:
            time.sleep(0.01)
        return 0

    options = OutputOptions(TokenBytes(bench.tokenizer), (2,), n=2, stop=("b",))
    bench.sender.start(ResponseStream(channel, True, options), submit)
    assert bench.engine.cancelled_choices == [(0, 0)]


def test_a_disconnect_cancels_only_its_own_generation(bench: Bench) -> None:
    gone, here = FakeChannel(), FakeChannel()
    bench.open(gone)
    say = bench.open(here)
    gone.left = True
    assert gone.ended.wait(5)
    assert gone.sent == [None]
    assert 1 not in bench.engine.cancelled
    say(EngineOutput(bench.ids("a"), finish="stop"))
    assert here.ended.wait(5)


def test_a_disconnect_is_noticed_among_many_connections(bench: Bench) -> None:
    channels = [FakeChannel() for _ in range(5 * CHECKS_AT_ONCE)]
    for channel in channels:
        bench.open(channel)
    time.sleep(2 * POLL_SECONDS)
    for channel in channels[::3]:
        channel.left = True
    for channel in channels[::3]:
        assert channel.ended.wait(2 * CHECK_ROUNDS * POLL_SECONDS + 5)
    assert sorted(set(bench.engine.cancelled)) == list(range(0, len(channels), 3))


def test_responses_are_flushed_after_each_batch(tokenizer: Tokenizer) -> None:
    engine, channel, flushed = FakeEngine(), FakeChannel(), threading.Event()
    sent_before: list[int] = []

    def flush() -> None:
        sent_before.append(len(channel.sent))
        if channel.sent:
            flushed.set()

    bench = Bench(tokenizer, engine, ResponseSender(engine.cancel, lambda: None, flush))
    try:
        bench.open(channel)(EngineOutput(bench.ids("a")))
        assert flushed.wait(5)
        assert 1 in sent_before
    finally:
        bench.sender.close()


def test_an_engine_failure_becomes_an_error(bench: Bench) -> None:
    channel = FakeChannel()
    bench.open(channel)(EngineOutput(error="RuntimeError: boom"))
    assert channel.ended.wait(5)
    assert isinstance(channel.sent[0], EngineFailure)


def test_a_broken_channel_affects_only_its_own_response(bench: Bench) -> None:
    broken, fine = FakeChannel(broken=True), FakeChannel()
    bench.open(broken)(EngineOutput(bench.ids("a")))
    bench.open(fine)(EngineOutput(bench.ids("a"), finish="stop"))
    assert fine.ended.wait(5)
    bench.sender.close()
    assert 0 in bench.engine.cancelled


def test_a_generation_that_ends_during_submit_leaves_nothing(bench: Bench) -> None:
    channel = FakeChannel()

    def submit(listen: Callable[[EngineOutput], None]) -> int:
        listen(EngineOutput(bench.ids("a"), finish="stop"))
        assert channel.ended.wait(5)
        bench.engine.listeners.append(listen)
        return 0

    bench.sender.start(
        ResponseStream(channel, True, OutputOptions(TokenBytes(bench.tokenizer), (2,))), submit
    )
    assert not bench.sender._open
