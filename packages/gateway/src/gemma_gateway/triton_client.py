"""The engine client in front of one or several Triton servers.

Requests are routed by ``routing.router``. A request that a server refuses because it is full or unavailable
goes to the next one, as long as nothing of its response has been sent.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, Literal

from gemma_gateway.routing.router import rank_servers
from gemma_gateway.routing.routing_key import estimated_tokens, routing_key
from gemma_gateway.server_pool import ServerPool
from gemma_gateway.triton_server import DESCRIBE, Report, TritonServer
from gemma_wire import Chunk, ModelInfo, Options, Overloaded, Request, TokenizerInfo, Tokens, Unavailable

TOKENS_SECONDS: Final = 30.0
"""Timeout for tokenizing a prompt, including its images."""
REMEMBERED: Final = 2**16
"""Conversations whose last server is known."""
Reason = Literal["new", "same", "moved", "retry"]
"""Why a server got a request: it begins a conversation, its last turn ran there, its last turn ran elsewhere,
or another server has refused it."""
OnRouted = Callable[[str, Reason], None]


def _ignore(_: str, __: Reason) -> None:
    """Nobody wants to know."""


class TritonClient:
    """A client of one server or of several. Create it inside the event loop that uses it.

    Args:
        targets: ``host:port`` or any other gRPC target, one for each server; ``dns:///name:port`` stands for
            all addresses of the name.
        describe_seconds: how long ``describe`` waits for a server.
        on_routed: called with the server of each request.
    """

    def __init__(
        self,
        targets: Sequence[str],
        describe_seconds: float = 5,
        on_routed: OnRouted = _ignore,
    ) -> None:
        self._pool = ServerPool(targets)
        self._describe_seconds, self._on_routed = describe_seconds, on_routed
        self._last: OrderedDict[bytes, str] = OrderedDict()  # conversation → the server of its last turn

    async def generate(self, request: Request, request_id: str) -> AsyncGenerator[Chunk, None]:
        """See ``EngineClient``."""
        tokens = estimated_tokens(request)
        tried: list[str] = []
        refused: list[Unavailable | Overloaded] = []
        key = routing_key(request) if len(await self._pool.servers()) > 1 else None
        while server := await self._choose(key, tokens, tried):
            started = False
            self._note(server.target, key, bool(tried))
            tried.append(server.target)
            try:
                with server.outstanding(tokens):
                    async with aclosing(server.generate(request, request_id)) as chunks:
                        async for chunk in chunks:
                            started = True
                            yield chunk
                return
            except (Unavailable, Overloaded) as error:
                if started:
                    raise
                refused.append(error)
        full = [error for error in refused if isinstance(error, Overloaded)]
        raise (full or refused)[0]

    async def tokens(self, request: Request) -> Tokens:
        """See ``EngineClient``."""
        return await self._report(Tokens, request, TOKENS_SECONDS)

    async def describe(self) -> ModelInfo:
        """See ``EngineClient``."""
        return await self._report(ModelInfo, DESCRIBE, self._describe_seconds)

    async def tokenizer_info(self) -> TokenizerInfo:
        """See ``EngineClient``."""
        return await self._report(
            TokenizerInfo, Request(options=Options(op="tokenizer_info")), TOKENS_SECONDS
        )

    async def close(self) -> None:
        """See ``EngineClient``."""
        await self._pool.close()

    async def _choose(self, key: bytes | None, tokens: int, tried: Sequence[str]) -> TritonServer | None:
        """The next server for a request; ``None`` if all have been tried."""
        servers = await self._pool.servers()
        last = self._last.get(key) if key else None
        ranked = rank_servers([server.load for server in servers.values()], key, last, tokens)
        return next((servers[name] for name in ranked if name not in tried), None)

    def _note(self, name: str, key: bytes | None, retried: bool) -> None:
        """Remembers the server of a conversation."""
        last = self._last.pop(key, None) if key else None
        if key:
            self._last[key] = name
            if len(self._last) > REMEMBERED:
                self._last.popitem(last=False)
        first: Reason = "new" if last is None else "same" if last == name else "moved"
        self._on_routed(name, "retry" if retried else first)

    async def _report(self, kind: type[Report], request: Request, seconds: float) -> Report:
        """The report of the first server that is available."""
        servers = await self._pool.servers()
        *others, last = rank_servers([server.load for server in servers.values()])
        for name in others:
            try:
                return await servers[name].report(kind, request, seconds)
            except Unavailable:
                continue
        return await servers[last].report(kind, request, seconds)
