"""Steps of the engine → responses; and the place where a client's leaving is noticed."""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from gemma_model.output import TextStream
from gemma_model.protocol import Step
from gemma_wire import Chunk, EngineFailure, FinishReason, Usage, WireError

POLL_SECONDS = 0.05
"""How often each client is asked whether it is still there."""


class Channel(Protocol):
    """The way back to one client."""

    def send(self, chunk: Chunk, *, last: bool) -> None:
        """Send a response."""

    def fail(self, error: WireError) -> None:
        """Send an error; nothing follows."""

    def close(self) -> None:
        """End without a response."""

    def cancelled(self) -> bool:
        """Whether the client has left."""


@dataclass(eq=False)
class Answer:
    """One answer on its way out.

    Args:
        stream: a response for each step, or one in the end.
        number: the engine's; set once it is submitted.
        finished: the last response has gone; later steps are ignored.
    """

    channel: Channel
    stream: bool
    text: TextStream
    prompt_tokens: int
    number: int | None = None
    finished: bool = False
    unsent: str = ""

    def advance(self, steps: Iterable[Step]) -> None:
        """Send what these steps bring; several that have piled up go as one response."""
        for step in steps:
            self.unsent += self.text.feed(step.token_ids)
            if self.text.stopped or step.last:
                self._finish(step)
                return
        if self.stream and self.unsent:
            self.channel.send(Chunk(text=self._take()), last=False)

    def _finish(self, step: Step) -> None:
        self.finished = True
        if step.error is not None:
            self.channel.fail(EngineFailure(step.error))
        elif step.finish == "cancelled" and not self.text.stopped:
            self.channel.close()
        else:
            self.unsent += self.text.finish()
            reason: FinishReason = "length" if step.finish == "length" and not self.text.stopped else "stop"
            usage = Usage(
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self.text.tokens,
                cached_tokens=step.cached_tokens,
            )
            self.channel.send(Chunk(text=self._take(), finish_reason=reason, usage=usage), last=True)

    def _take(self) -> str:
        text, self.unsent = self.unsent, ""
        return text


class Outbox:
    """A thread that sends every answer.

    Args:
        cancel: ends a generation, by the engine's number.
        after_batch: called after each round, for metrics; from this thread.
    """

    def __init__(self, cancel: Callable[[int], None], after_batch: Callable[[], None]) -> None:
        self._cancel = cancel
        self._after_batch = after_batch
        self._inbox: queue.SimpleQueue[tuple[Answer, Step] | None] = queue.SimpleQueue()
        self._open: set[Answer] = set()
        self._polled = 0.0
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def post(self, answer: Answer, submit: Callable[[Callable[[Step], None]], int]) -> None:
        """Start an answer: ``submit`` hands it to the engine and returns the engine's number."""
        answer.number = submit(lambda step: self._inbox.put((answer, step)))
        self._open.add(answer)
        if answer.finished:  # so quick that the thread was done before the number was known
            self._retire(answer)

    def close(self) -> None:
        """Send what the engine has said so far, then stop. The engine must be closed before."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            steps, closing = self._drain()
            for answer, batch in steps.items():
                self._advance(answer, batch)
            self._poll_clients()
            self._after_batch()

    def _drain(self) -> tuple[dict[Answer, list[Step]], bool]:
        """All that waits, by answer, after waiting for the first at most ``POLL_SECONDS``."""
        batch: dict[Answer, list[Step]] = {}
        try:
            item = self._inbox.get(timeout=POLL_SECONDS)
            while item is not None:
                batch.setdefault(item[0], []).append(item[1])
                item = self._inbox.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _advance(self, answer: Answer, steps: list[Step]) -> None:
        if answer.finished:
            return
        try:
            answer.advance(steps)
        except Exception:
            answer.finished = True
        if answer.finished:
            self._retire(answer)

    def _retire(self, answer: Answer) -> None:
        self._open.discard(answer)
        if answer.number is not None:
            self._cancel(answer.number)  # a stop string ends the answer before the engine knows

    def _poll_clients(self) -> None:
        if time.monotonic() - self._polled < POLL_SECONDS:
            return
        self._polled = time.monotonic()
        for answer in list(self._open):
            if answer.number is not None and answer.channel.cancelled():
                self._cancel(answer.number)
