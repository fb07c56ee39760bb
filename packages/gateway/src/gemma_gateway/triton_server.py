"""One tritonserver behind its gRPC port; the only file of the gateway that uses Triton.

Triton does not end a stream when the model's process has died or the server hangs: the stream stays silent
forever. So while responses are awaited and nothing arrives, the health of the server is checked. A server
that has failed is asked from time to time until it responds.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from gemma_gateway.observability import tracing
from gemma_gateway.routing.circuit_breaker import CircuitBreaker
from gemma_gateway.routing.router import ServerLoad
from gemma_gateway.subscription import Subscription
from gemma_gateway.worker_thread import in_thread
from gemma_wire import (
    Chunk,
    ChunkBatch,
    ModelInfo,
    Options,
    Overloaded,
    Request,
    TokenizerInfo,
    Tokens,
    Unavailable,
    WireError,
)
from gemma_wire.tensors import INPUTS_BY_NAME, MODEL, OUTPUTS, Array

log = logging.getLogger(__name__)

SILENCE_SECONDS: Final = 1.0
"""The health of a server is checked when it has been silent for this long."""
CHECK_SECONDS: Final = 2.5
"""Timeout of the check. Twice the former plus this is below 5 s, within which a failure is noticed."""
FULL_SECONDS: Final = 1.0
"""A server whose queue was full is avoided for this long."""
Report = TypeVar("Report", ModelInfo, TokenizerInfo, Tokens)
Message = TypeVar("Message", Chunk, ChunkBatch)
DESCRIBE: Final = Request(options=Options(op="describe"))
_LARGE: Final = 2**16
"""Bytes that are packed in less than a millisecond; more are packed in a thread."""
_MAX_MESSAGE: Final = 2**31 - 1
_CHANNEL: Final = (
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # reconnect to a restarted server within a second
    ("grpc.enable_http_proxy", 0),
    ("grpc.lb_policy_name", "round_robin"),  # over the addresses of a dns:/// target
)
_DOWN: Final = re.compile(
    r"is not healthy|unknown model|not ready|not at ready state|no available versions|server is stopping|"
    r"stopped accepting|unloading",
    re.IGNORECASE,
)


class TimedOut(Unavailable):
    """The server did not respond in time."""


class TritonServer:
    """Its gRPC channel, the responses awaited from it, and their supervision.

    Create it inside the event loop that uses it.

    Args:
        target: ``host:port`` or any other gRPC target.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._client = InferenceServerClient(target, channel_args=_CHANNEL)
        self._awaited: dict[Any, str | None] = {}  # gRPC call → why it was cancelled
        self._received = 0  # messages with chunks so far
        self._subscription = Subscription(self._subscribe)
        self._supervisor: asyncio.Task[None] | None = None
        self._last_error = ""  # each error is logged once, until the server responds again
        self._breaker = CircuitBreaker()
        self._prober: asyncio.Task[None] | None = None
        self._full_until = 0.0
        self._tokens = self._requests = 0  # outstanding

    @property
    def load(self) -> ServerLoad:
        """What the router needs to know."""
        available = not self._breaker.is_open and time.monotonic() >= self._full_until
        return ServerLoad(self.target, self._tokens, self._requests, available)

    @contextmanager
    def outstanding(self, tokens: int) -> Iterator[None]:
        """Counts a request with this estimate of its tokens, until the end of the block."""
        self._tokens += tokens
        self._requests += 1
        try:
            yield
        except Overloaded:
            self._full_until = time.monotonic() + FULL_SECONDS
            raise
        finally:
            self._tokens -= tokens
            self._requests -= 1

    async def generate(self, request: Request, request_id: str) -> AsyncGenerator[Chunk, None]:
        """The chunks of one response.

        Raises:
            WireError: from the model; ``Unavailable`` when the connection was lost.
        """
        finished = False
        if self._subscription.is_old:
            self._subscription = Subscription(self._subscribe)  # the old one closes with its last response
        with self._subscription.receiver() as receiver:
            call = self._call(await _to_inputs(receiver.address(request)), request_id)
            self._await(call)
            try:
                async with aclosing(receiver.read(self._messages(call, Chunk))) as chunks:
                    async for chunk in chunks:
                        finished = chunk.usage is not None
                        yield chunk
            except asyncio.CancelledError:
                if (reason := self._awaited[call]) is None:
                    raise
                raise Unavailable(reason) from None
            finally:
                call.cancel()  # whatever has been read of it
                del self._awaited[call]
        if not finished:
            raise Unavailable("Triton closed the stream before the response was complete")

    def _subscribe(self, request: Request) -> AsyncGenerator[ChunkBatch, None]:
        """The chunks of all requests that name a subscription."""
        return self._messages(self._call(to_inputs(request), ""), ChunkBatch)

    async def _messages(self, call: Any, kind: type[Message]) -> AsyncGenerator[Message, None]:
        """What a stream brings of responses."""
        async with aclosing(self._responses(call)) as responses:
            async for arrays in responses:
                self._received += 1
                yield kind.from_tensors(arrays)

    async def report(self, kind: type[Report], request: Request, seconds: float) -> Report:
        """The single response of an operation that generates nothing.

        The stream is read to its end: if it is cancelled right after its last response, Triton sometimes
        considers the request open forever, and then neither unloads the model nor stops in time.

        Raises:
            TimedOut: no response within ``seconds``.
            WireError: from the model.
        """
        call = self._call(await _to_inputs(request), "", seconds)
        async with aclosing(self._responses(call)) as responses:
            reports = [kind.from_tensors(arrays) async for arrays in responses]
        if not reports:
            raise Unavailable("Triton closed the stream without a response")
        return reports[0]

    async def close(self, when_idle: bool = False) -> None:
        """Close the connection.

        Args:
            when_idle: not before the last outstanding request has ended.
        """
        while when_idle and self._requests:  # noqa: ASYNC110 - a second more or less does not matter
            await asyncio.sleep(1)
        for task in (self._supervisor, self._prober):
            if task is not None:
                task.cancel()
        self._subscription.close()
        await self._client.close()

    def _call(self, tensors: list[InferInput], request_id: str, seconds: float | None = None) -> Any:
        inputs = {"model_name": MODEL, "inputs": tensors, "request_id": request_id}

        async def once() -> AsyncGenerator[dict[str, Any], None]:
            yield inputs

        return self._client.stream_infer(once(), stream_timeout=seconds, headers=tracing.headers())

    async def _responses(self, call: Any) -> AsyncGenerator[dict[str, Array], None]:
        """The tensors of each response. A stream has one request, so it ends with its last response."""
        try:
            async for result, error in call:
                if error is not None:
                    raise self._logged(from_message(error.message()))
                self._last_error = ""
                self._breaker.succeeded()
                yield {tensor.name: result.as_numpy(tensor.name) for tensor in OUTPUTS}
        except grpc.RpcError as error:
            raise self._logged(from_status(error.code()), error.details()) from error
        finally:
            call.cancel()

    def _logged(self, error: WireError, details: str = "") -> WireError:
        if isinstance(error, Unavailable) and error.message != self._last_error:
            self._last_error = error.message
            log.warning("Triton at %s: %s %s", self.target, error, details)
        if isinstance(error, Unavailable) and not isinstance(error, TimedOut):
            self._failed()
        return error

    def _failed(self) -> None:
        self._breaker.failed()
        if self._breaker.is_open and (self._prober is None or self._prober.done()):
            self._prober = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        """Asks the server from time to time until it responds."""
        while self._breaker.is_open:
            await asyncio.sleep(self._breaker.probe_seconds)
            with contextlib.suppress(WireError):
                await self.report(ModelInfo, DESCRIBE, CHECK_SECONDS)

    def _await(self, call: Any) -> None:
        self._awaited[call] = None
        if self._supervisor is None or self._supervisor.done():
            self._supervisor = asyncio.create_task(self._supervise())

    async def _supervise(self) -> None:
        """While responses are awaited: cancels them if the server has failed."""
        while self._awaited:
            received = self._received
            await asyncio.sleep(SILENCE_SECONDS)
            if self._awaited and received == self._received and (reason := await self._failure()):
                log.warning(
                    "Triton at %s: %s; %d requests cancelled", self.target, reason, len(self._awaited)
                )
                self._failed()
                for call in self._awaited:
                    self._awaited[call] = reason
                    call.cancel()

    async def _failure(self) -> str | None:
        """The reason why the server has failed, or ``None``.

        A slow model is busy; a server that does not respond to the liveness check has failed.
        """
        described: ModelInfo | BaseException
        live: Any
        described, live = await asyncio.gather(
            self.report(ModelInfo, DESCRIBE, CHECK_SECONDS),
            self._client.is_server_live(client_timeout=CHECK_SECONDS),
            return_exceptions=True,
        )
        if live is not True:
            return "Triton does not respond"
        dead = isinstance(described, Unavailable) and not isinstance(described, TimedOut)
        return str(described) if dead else None


async def _to_inputs(request: Request) -> list[InferInput]:
    """``to_inputs``, in a thread when the request is large."""
    work = partial(to_inputs, request)
    return await in_thread(work) if request.size > _LARGE else work()


def to_inputs(request: Request) -> list[InferInput]:
    """The request's tensors in the form of Triton's client."""
    inputs = []
    for name, array in request.to_tensors().items():
        tensor = InferInput(name, list(array.shape), INPUTS_BY_NAME[name].wire_type)
        inputs.append(tensor.set_data_from_numpy(array))
    return inputs


def from_message(text: str) -> WireError:
    """The error in a stream's response: from the model, or from Triton about the model."""
    error = WireError.from_line(text)
    is_ours = error.message != text
    return Unavailable(text) if not is_ours and _DOWN.search(text) else error


def from_status(code: grpc.StatusCode) -> Unavailable:
    """The error for the gRPC status that ended a stream."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut("the model did not respond in time")
    return Unavailable(f"Triton cannot be reached ({code.name})")
