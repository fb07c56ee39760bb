"""The thread that sends answers; and the place where a client's leaving is noticed."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from gemma_model.answer import Answer
from gemma_model.protocol import Listener, Step
from gemma_wire import EngineFailure

log = logging.getLogger(__name__)
POLL_SECONDS = 0.05
"""How often each client is asked whether it is still there, and metrics are shown."""


class Cancel(Protocol):
    """``Engine.cancel``."""

    def __call__(self, number: int, choice: int | None = None) -> None:
        """End a generation, or one choice of it."""


class Outbox:
    """A thread that sends every answer.

    Args:
        cancel: ends a generation, or one choice of it, by the engine's number.
        show_metrics: called as often as clients are asked, from this thread: each of Triton's metrics costs a
            round trip to the server.
    """

    def __init__(self, cancel: Cancel, show_metrics: Callable[[], None]) -> None:
        self._cancel = cancel
        self._show_metrics = show_metrics
        self._inbox: queue.SimpleQueue[tuple[Answer, Step] | None] = queue.SimpleQueue()
        self._open: set[Answer] = set()
        self._looked = 0.0
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def post(self, answer: Answer, submit: Callable[[Listener], int]) -> None:
        """Start an answer: ``submit`` hands it to the engine and returns the engine's number."""
        answer.number = submit(lambda step: self._inbox.put((answer, step)))
        self._open.add(answer)
        self._settle(answer)  # the thread may have been quicker than the number

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
            if closing or time.monotonic() - self._looked >= POLL_SECONDS:
                self._look_around()

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
        except Exception as error:
            answer.finished = True
            log.warning("an answer could not be sent", exc_info=error)
            with suppress(Exception):  # most likely there is no way to the client any more
                answer.channel.fail(EngineFailure(f"{type(error).__name__}: {error}"))
        self._settle(answer)

    def _settle(self, answer: Answer) -> None:
        """Tell the engine what has ended without its knowing, as soon as its number is known."""
        if answer.number is None:
            return
        if answer.finished:
            self._open.discard(answer)
            self._cancel(answer.number)
        for choice in list(answer.to_cancel):
            answer.to_cancel.discard(choice)
            self._cancel(answer.number, choice)

    def _look_around(self) -> None:
        self._looked = time.monotonic()
        try:
            for answer in list(self._open):
                if answer.number is not None and answer.channel.cancelled():
                    self._cancel(answer.number)
            self._show_metrics()
        except Exception:  # no answer shall wait for ever because a metric could not be set
            log.exception("the outbox goes on without")
