"""Subscriptions: one response stream that carries the chunks of many requests.

Each response costs Triton and both of its sides about the same, however small it is. A client with many
streams, such as the gateway, opens a subscription; the chunks of its requests that are ready at the same time
become one response. The last chunk of a request, and its error, always come in its own stream.
"""

import logging
import threading
from typing import Protocol

from gemma_model.response import Channel
from gemma_wire import Chunk, ChunkBatch, InvalidRequest, ReceivedChunk

log = logging.getLogger(__name__)
MAX_SUBSCRIPTIONS = 64


class BatchChannel(Protocol):
    """The channel back to a subscriber."""

    def send(self, batch: ChunkBatch, *, last: bool) -> None:
        """Send a response."""

    def close(self) -> None:
        """End without a response."""

    def cancelled(self) -> bool:
        """Whether the client has closed the stream."""


class Subscriptions:
    """The open subscriptions. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._open: dict[str, _Subscription] = {}
        self._lock = threading.Lock()

    def open(self, name: str, channel: BatchChannel) -> None:
        """Open a subscription.

        Raises:
            InvalidRequest: the name is in use, or there are too many.
        """
        with self._lock:
            if name in self._open:
                raise InvalidRequest("is the name of an open subscription", "options.subscription")
            if len(self._open) >= MAX_SUBSCRIPTIONS:
                sentence = f"{MAX_SUBSCRIPTIONS} subscriptions are open, which is the limit"
                raise InvalidRequest(sentence, "options.subscription")
            self._open[name] = _Subscription(channel)

    def add(self, name: str, part: ReceivedChunk) -> bool:
        """Take a chunk, which the next ``flush`` sends; whether the subscription is open."""
        subscription = self._open.get(name)
        return subscription is not None and subscription.add(part)

    def flush(self) -> None:
        """Send what was added."""
        for name, subscription in list(self._open.items()):
            try:
                subscription.flush()
            except Exception as error:
                log.warning("the responses of a subscription could not be sent", exc_info=error)
                self._end(name)

    def close_cancelled(self) -> None:
        """Close the subscriptions whose clients have closed their streams."""
        for name, subscription in list(self._open.items()):
            if subscription.channel.cancelled():
                self._end(name)

    def close(self) -> None:
        """Close all."""
        for name in list(self._open):
            self._end(name)

    def _end(self, name: str) -> None:
        with self._lock:
            subscription = self._open.pop(name, None)
        if subscription is not None:
            subscription.close()


class SubscribedChannel:
    """The ``Channel`` of a request that names a subscription. Numbers the chunks, because they take two ways.

    Args:
        own: the request's own stream.
        subscriptions: the open ones.
        name: of the subscription; it may open or close at any time.
        receiver: what the request is called there.
    """

    def __init__(self, own: Channel, subscriptions: Subscriptions, name: str, receiver: int) -> None:
        self._own, self._subscriptions, self._name, self._receiver = own, subscriptions, name, receiver
        self._count = 0
        self.fail, self.close, self.cancelled = own.fail, own.close, own.cancelled

    def send(self, chunk: Chunk, *, last: bool) -> None:
        """See ``Channel.send``."""
        chunk = chunk.model_copy(update={"number": self._count})
        self._count += 1
        if last or not self._subscriptions.add(self._name, ReceivedChunk(self._receiver, chunk)):
            self._own.send(chunk, last=last)


class _Subscription:
    def __init__(self, channel: BatchChannel) -> None:
        self.channel = channel
        self._waiting: list[ReceivedChunk] = []
        self._closed = False
        self._lock = threading.Lock()  # protects the two above
        self._sending = threading.Lock()

    def add(self, part: ReceivedChunk) -> bool:
        with self._lock:
            if not self._closed:
                self._waiting.append(part)
            return not self._closed

    def flush(self) -> None:
        with self._sending:
            with self._lock:
                waiting, self._waiting = self._waiting, []
            if waiting:
                self.channel.send(ChunkBatch(chunks=tuple(waiting)), last=False)

    def close(self) -> None:
        with self._sending:
            with self._lock:
                self._closed = True
            try:
                self.channel.close()
            except Exception as error:
                log.warning("a subscription could not be closed", exc_info=error)
