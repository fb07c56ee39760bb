"""The thread that sends responses: it joins queued outputs, and notices when a client disconnects."""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from gemma_model.engine_types import EngineOutput, OutputCallback
from gemma_model.response import ResponseStream
from gemma_wire import EngineFailure

log = logging.getLogger(__name__)
POLL_SECONDS = 0.05
"""Interval at which clients' connections are checked and the metrics are updated."""
CHECKS_AT_ONCE = 4
CHECK_ROUNDS = 8
"""Each check is a round trip to Triton, which costs as much as sending a token. So of many connections only
some are checked at a time: at least ``CHECKS_AT_ONCE``, and each within about ``CHECK_ROUNDS`` intervals."""


class Cancel(Protocol):
    """``Engine.cancel``."""

    def __call__(self, request_id: int, choice: int | None = None) -> None:
        """End a request, or one choice of it."""


class ResponseSender:
    """A thread that sends all responses.

    Args:
        cancel: ends a request, or one choice of it, by the engine's request id.
        update_metrics: called every ``POLL_SECONDS`` in this thread: each of Triton's metrics costs a round
            trip to the server.
        flush: called after the responses to all queued outputs have been sent, before the thread waits.
    """

    def __init__(
        self, cancel: Cancel, update_metrics: Callable[[], None], flush: Callable[[], None] = lambda: None
    ) -> None:
        self._cancel = cancel
        self._update_metrics = update_metrics
        self._flush = flush
        self._inbox: queue.SimpleQueue[tuple[ResponseStream, EngineOutput] | None] = queue.SimpleQueue()
        self._open: set[ResponseStream] = set()
        self._to_check: list[ResponseStream] = []
        self._last_poll = 0.0
        self._thread = threading.Thread(target=self._run, name="response-sender", daemon=True)
        self._thread.start()

    def start(self, response: ResponseStream, submit: Callable[[OutputCallback], int]) -> None:
        """Start a response: ``submit`` passes the request to the engine and returns its request id."""
        response.request_id = submit(lambda output: self._inbox.put((response, output)))
        self._open.add(response)
        self._settle(response)  # the thread may have finished it before the id was known

    def close(self) -> None:
        """Send what the engine has returned so far, then stop. The engine must be closed before."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            outputs, closing = self._drain()
            for response, batch in outputs.items():
                self._advance(response, batch)
            self._flush()
            if closing or time.monotonic() - self._last_poll >= POLL_SECONDS:
                self._poll()

    def _drain(self) -> tuple[dict[ResponseStream, list[EngineOutput]], bool]:
        """All queued outputs by response, after waiting for the first at most ``POLL_SECONDS``."""
        batch: dict[ResponseStream, list[EngineOutput]] = {}
        try:
            item = self._inbox.get(timeout=POLL_SECONDS)
            while item is not None:
                batch.setdefault(item[0], []).append(item[1])
                item = self._inbox.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _advance(self, response: ResponseStream, outputs: list[EngineOutput]) -> None:
        if response.finished:
            return
        try:
            response.advance(outputs)
        except Exception as error:
            response.finished = True
            log.warning("a response could not be sent", exc_info=error)
            with suppress(Exception):  # most likely the channel to the client is broken
                response.channel.fail(EngineFailure(f"{type(error).__name__}: {error}"))
        self._settle(response)

    def _settle(self, response: ResponseStream) -> None:
        """Cancel in the engine what has ended for other reasons, as soon as the request id is known."""
        if response.request_id is None:
            return
        if response.finished:
            self._open.discard(response)
            self._cancel(response.request_id)
        for choice in list(response.to_cancel):
            response.to_cancel.discard(choice)
            self._cancel(response.request_id, choice)

    def _poll(self) -> None:
        self._last_poll = time.monotonic()
        try:
            for response in self._next_checks():
                if response.request_id is not None and response.channel.cancelled():
                    self._cancel(response.request_id)
            self._update_metrics()
        except Exception:  # a metric that cannot be set must not stop the responses
            log.exception("the response sender continues after an error")

    def _next_checks(self) -> list[ResponseStream]:
        """The responses whose connections are checked now; all have their turn."""
        if not self._to_check:
            self._to_check = list(self._open)
        count = max(CHECKS_AT_ONCE, math.ceil(len(self._open) / CHECK_ROUNDS))
        checked, self._to_check = self._to_check[:count], self._to_check[count:]
        return [response for response in checked if not response.finished]
