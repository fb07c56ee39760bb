"""One gRPC stream that brings the chunks of all responses that are awaited from a Triton server.

A message costs the gateway and Triton about the same, however small it is. So while several responses are
awaited, a subscription is open, and the chunks that are ready at the same time arrive in one message
(decision 027). Each request still has a stream of its own, which brings the last chunk and errors, and ends
the generation when it is cancelled. Chunks have numbers, because they take two ways.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from secrets import token_hex
from typing import Final

from gemma_wire import Chunk, ChunkBatch, InvalidRequest, Options, Request, Unavailable

log = logging.getLogger(__name__)
SUBSCRIBE_FROM: Final = 2
"""Responses that are awaited when the subscription is opened: one alone would gain nothing."""
MAX_AGE_SECONDS: Final = 10.0
"""A subscription takes no more responses when it has been open for so long. Triton does not unload a model
while one is open; so after a reload, also under load, the old model is unloaded when its responses end."""
Batches = AsyncGenerator[ChunkBatch, None]


class Receiver:
    """Collects the chunks of one response, in order.

    Args:
        subscription: the name of the subscription.
        number: what the response is called there.
    """

    def __init__(self, subscription: str, number: int) -> None:
        self._subscription, self._number = subscription, number
        self._early: dict[int, Chunk] = {}
        self._next = 0
        self._ready: asyncio.Queue[Chunk | BaseException | None] = asyncio.Queue()

    def address(self, request: Request) -> Request:
        """The request with this receiver in its options."""
        update = {"subscription": self._subscription, "receiver": self._number}
        return request.model_copy(update={"options": request.options.model_copy(update=update)})

    def put(self, chunk: Chunk) -> None:
        """Takes a chunk. One without a number comes from a model that knows no subscriptions."""
        self._early[self._next if chunk.number is None else chunk.number] = chunk
        while (following := self._early.pop(self._next, None)) is not None:
            self._next += 1
            self._ready.put_nowait(following)

    def end(self, error: BaseException | None = None) -> None:
        """No chunk follows."""
        self._ready.put_nowait(error)

    async def read(self, own: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
        """All chunks of the response.

        Args:
            own: those that its own stream brings; read to its end, unless the generator is closed before.

        Raises:
            Exception: what ``own`` or the stream of the subscription raises.
        """
        reading = asyncio.create_task(self._read_own(own))
        try:
            while (item := await self._ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
                if item.usage is not None:
                    await reading
                    return
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_own(self, own: AsyncGenerator[Chunk, None]) -> None:
        """Ends the response with the stream, unless the last chunk waits for others."""
        last = False
        try:
            async with aclosing(own):
                async for chunk in own:
                    last = chunk.usage is not None
                    self.put(chunk)
        except (Exception, asyncio.CancelledError) as error:  # raised by ``read``
            self.end(error)
        else:
            if not last:
                self.end()


class Subscription:
    """The responses that are awaited from one server.

    Args:
        subscribe: opens the stream for a request.
    """

    def __init__(self, subscribe: Callable[[Request], Batches]) -> None:
        self._subscribe = subscribe
        self._name = token_hex(16)
        self._receivers: dict[int, Receiver] = {}
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._opened = 0.0

    @property
    def is_old(self) -> bool:
        """Whether the stream has been open for ``MAX_AGE_SECONDS``."""
        return self._task is not None and time.monotonic() - self._opened >= MAX_AGE_SECONDS

    @contextmanager
    def receiver(self) -> Iterator[Receiver]:
        """A receiver for one response, until the end of the block."""
        number, self._count = self._count, (self._count + 1) % 2**31
        self._receivers[number] = receiver = Receiver(self._name, number)
        if len(self._receivers) >= SUBSCRIBE_FROM and self._task is None:
            self._task, self._opened = asyncio.create_task(self._run()), time.monotonic()
        try:
            yield receiver
        finally:
            del self._receivers[number]
            if not self._receivers:
                self.close()

    def close(self) -> None:
        """Closes the stream; Triton does not unload the model while it is open."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._name = token_hex(16)  # the model may still know the old one

    async def _run(self) -> None:
        """Passes the chunks on; if the stream breaks, all responses that may miss chunks have failed.

        A model that refuses the subscription has sent nothing in it: all chunks come in their own streams.
        """
        request = Request(options=Options(op="subscribe", subscription=self._name))
        failed: Exception = Unavailable("Triton closed the stream of all responses")
        try:
            async with aclosing(self._subscribe(request)) as batches:
                async for batch in batches:
                    for number, chunk in batch.chunks:
                        if (receiver := self._receivers.get(number)) is not None:
                            receiver.put(chunk)
        except InvalidRequest as error:
            log.warning("the model refuses to send responses together: %s", error)
            self._task = None
            return
        except Exception as error:  # raised by the receivers
            failed = error
        for receiver in self._receivers.values():
            receiver.end(failed)
        self._task, self._name = None, token_hex(16)
