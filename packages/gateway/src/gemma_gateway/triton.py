"""The engine behind Triton's gRPC port; the only file that knows Triton.

Triton does not tell a waiting stream that the model's process died or that the server hangs: the stream just
stays silent, for ever. So while answers are awaited and nothing comes, each server is asked how it is.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeVar

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from gemma_gateway import tracing
from gemma_gateway.threads import in_thread
from gemma_wire import Chunk, ModelInfo, Options, Request, TokenizerInfo, Tokens, Unavailable, WireError
from gemma_wire.tensors import INPUTS_BY_NAME, MODEL, OUTPUTS, Array

log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 1.0
"""A server that was silent for so long is asked how it is, ..."""
ANSWER_SECONDS: Final = 2.5
"""... and is lost when it does not answer within this. Twice the one plus the other is below 5 s."""
TOKENS_SECONDS: Final = 30.0
"""How long a prompt may take to be tokenised, its pictures included."""
Report = TypeVar("Report", ModelInfo, TokenizerInfo, Tokens)
_LARGE: Final = 2**16
"""Bytes that are packed in less than a millisecond."""
_MAX_MESSAGE: Final = 2**31 - 1
_CHANNEL: Final = (
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # a restarted server is found again within a second
    ("grpc.enable_http_proxy", 0),
    ("grpc.lb_policy_name", "round_robin"),  # of the addresses that a dns:/// target stands for
)
_DOWN: Final = re.compile(
    r"is not healthy|unknown model|not ready|not at ready state|no available versions|server is stopping|"
    r"stopped accepting|unloading",
    re.IGNORECASE,
)


class TimedOut(Unavailable):
    """No answer in time."""


class TritonEngine:
    """One server, or several in turn; a server that cannot answer is passed over for the next.

    Make one inside the event loop that uses it.

    Args:
        targets: ``host:port`` or any other gRPC target, one for each server.
        describe_seconds: how long ``describe`` waits for a server.
    """

    def __init__(self, targets: Sequence[str], describe_seconds: float = 5) -> None:
        self._servers = [_Server(target) for target in targets]
        self._describe_seconds = describe_seconds
        self._next = 0

    async def generate(self, request: Request, request_id: str) -> AsyncGenerator[Chunk, None]:
        """See ``Engine``."""
        *others, last = self._in_turn()
        for server in others:
            begun = False
            try:
                async with aclosing(server.generate(request, request_id)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except Unavailable:
                if begun:
                    raise
        async with aclosing(last.generate(request, request_id)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def tokens(self, request: Request) -> Tokens:
        """See ``Engine``."""
        return await self._first(lambda server: server.report(Tokens, request, TOKENS_SECONDS))

    async def describe(self) -> ModelInfo:
        """See ``Engine``."""
        return await self._first(lambda server: server.describe(self._describe_seconds))

    async def tokenizer_info(self) -> TokenizerInfo:
        """See ``Engine``."""
        ask = Request(options=Options(op="tokenizer_info"))
        return await self._first(lambda server: server.report(TokenizerInfo, ask, TOKENS_SECONDS))

    async def close(self) -> None:
        """See ``Engine``."""
        await asyncio.gather(*(server.close() for server in self._servers))

    async def _first(self, ask: Callable[["_Server"], Awaitable[Report]]) -> Report:
        """The answer of the first server that can give one."""
        *others, last = self._in_turn()
        for server in others:
            try:
                return await ask(server)
            except Unavailable:
                continue
        return await ask(last)

    def _in_turn(self) -> list["_Server"]:
        """All servers, each time beginning with another."""
        start = self._next % len(self._servers)
        self._next += 1
        return self._servers[start:] + self._servers[:start]


class _Server:
    """One tritonserver: its channel, the answers awaited from it, and the watch over them."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._client = InferenceServerClient(target, channel_args=_CHANNEL)
        self._awaited: dict[Any, str | None] = {}  # gRPC call → why it was given up
        self._heard = 0  # chunks so far
        self._watch: asyncio.Task[None] | None = None
        self._complaint = ""  # what was last wrong with it; each is logged once, until it answers again

    async def generate(self, request: Request, request_id: str) -> AsyncGenerator[Chunk, None]:
        """The chunks of one answer.

        Raises:
            WireError: what the model said; ``Unavailable`` when it was lost on the way.
        """
        finished = False
        call = self._call(await _to_inputs(request), request_id)
        self._await(call)
        try:
            async with aclosing(self._responses(call)) as responses:
                async for arrays in responses:
                    self._heard += 1
                    chunk = Chunk.from_tensors(arrays)
                    finished = chunk.usage is not None
                    yield chunk
        except asyncio.CancelledError:
            if (reason := self._awaited[call]) is None:
                raise
            raise Unavailable(reason) from None
        finally:
            del self._awaited[call]
        if not finished:
            raise Unavailable("Triton closed the stream before the answer was complete")

    async def describe(self, seconds: float) -> ModelInfo:
        """What the model says about itself; raises what ``report`` raises."""
        return await self.report(ModelInfo, Request(options=Options(op="describe")), seconds)

    async def report(self, kind: type[Report], request: Request, seconds: float) -> Report:
        """The one answer to an operation that generates nothing.

        The stream is read to its end: if it is cancelled right after its last response, Triton now and then
        takes the request to be open for ever, and then neither unloads the model nor stops in time.

        Raises:
            TimedOut: nothing came within ``seconds``.
            WireError: the model cannot answer.
        """
        call = self._call(await _to_inputs(request), "", seconds)
        async with aclosing(self._responses(call)) as responses:
            reports = [kind.from_tensors(arrays) async for arrays in responses]
        if not reports:
            raise Unavailable("Triton closed the stream without an answer")
        return reports[0]

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        await self._client.close()

    def _call(self, tensors: list[InferInput], request_id: str, seconds: float | None = None) -> Any:
        inputs = {"model_name": MODEL, "inputs": tensors, "request_id": request_id}

        async def once() -> AsyncGenerator[dict[str, Any], None]:
            yield inputs

        return self._client.stream_infer(once(), stream_timeout=seconds, headers=tracing.headers())

    async def _responses(self, call: Any) -> AsyncGenerator[dict[str, Array], None]:
        """The tensors of each response. The stream carries one request, so it ends where the answer ends."""
        try:
            async for result, error in call:
                if error is not None:
                    raise self._logged(from_message(error.message()))
                self._complaint = ""
                yield {tensor.name: result.as_numpy(tensor.name) for tensor in OUTPUTS}
        except grpc.RpcError as error:
            raise self._logged(from_status(error.code()), error.details()) from error
        finally:
            call.cancel()

    def _logged(self, error: WireError, details: str = "") -> WireError:
        if isinstance(error, Unavailable) and error.message != self._complaint:
            self._complaint = error.message
            log.warning("Triton at %s: %s %s", self.target, error, details)
        return error

    def _await(self, call: Any) -> None:
        self._awaited[call] = None
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._keep_watch())

    async def _keep_watch(self) -> None:
        """As long as answers are awaited: gives them up when the server is lost."""
        while self._awaited:
            heard = self._heard
            await asyncio.sleep(QUIET_SECONDS)
            if self._awaited and heard == self._heard and (reason := await self._illness()):
                log.warning("Triton at %s: %s; %d answers given up", self.target, reason, len(self._awaited))
                self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        for call in self._awaited:
            self._awaited[call] = reason
            call.cancel()

    async def _illness(self) -> str | None:
        """Why nothing can be expected from the server any more, or ``None``.

        A model that is slow to describe itself is busy; a server that does not say that it lives is lost.
        """
        described: ModelInfo | BaseException
        live: Any
        described, live = await asyncio.gather(
            self.describe(ANSWER_SECONDS),
            self._client.is_server_live(client_timeout=ANSWER_SECONDS),
            return_exceptions=True,
        )
        if live is not True:
            return "Triton does not answer"
        dead = isinstance(described, Unavailable) and not isinstance(described, TimedOut)
        return str(described) if dead else None


async def _to_inputs(request: Request) -> list[InferInput]:
    """``to_inputs``, in a thread when the request is large."""
    work = partial(to_inputs, request)
    return await in_thread(work) if request.size > _LARGE else work()


def to_inputs(request: Request) -> list[InferInput]:
    """The request's tensors as Triton's client wants them."""
    inputs = []
    for name, array in request.to_tensors().items():
        tensor = InferInput(name, list(array.shape), INPUTS_BY_NAME[name].wire_type)
        inputs.append(tensor.set_data_from_numpy(array))
    return inputs


def from_message(text: str) -> WireError:
    """The error that a stream carried: the model's own, or Triton's about the model."""
    error = WireError.from_line(text)
    is_ours = error.message != text
    return Unavailable(text) if not is_ours and _DOWN.search(text) else error


def from_status(code: grpc.StatusCode) -> Unavailable:
    """The error that ended a stream."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut("the model did not answer in time")
    return Unavailable(f"Triton cannot be reached ({code.name})")
