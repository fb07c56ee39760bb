"""The servers behind the configured targets, which may join and leave while the gateway runs."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Final

from gemma_gateway.routing.dns_targets import has_names, resolve_targets
from gemma_gateway.triton_server import TritonServer
from gemma_wire import Unavailable

log = logging.getLogger(__name__)
REFRESH_SECONDS: Final = 5.0
"""Names are resolved again after this time; Kubernetes keeps the addresses of a headless service for 30 s."""


class ServerPool:
    """Connections to all servers. Create it inside the event loop that uses it.

    Args:
        targets: gRPC targets, one for each server, or a ``dns:`` name for all of its addresses.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets, self._changes = targets, has_names(targets)
        self._servers: dict[str, TritonServer] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._refreshing: asyncio.Task[None] | None = None
        if not self._changes:
            self._update(targets)

    async def servers(self) -> dict[str, TritonServer]:
        """Address → server, of those that are known now.

        Raises:
            Unavailable: no name could be resolved.
        """
        if self._changes and not self._servers:
            await self._refresh()
        if self._changes and self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh_forever())
        if not self._servers:
            raise Unavailable(f"{', '.join(self._targets)} has no address")
        return self._servers

    async def close(self) -> None:
        """Close all connections."""
        for task in (*self._leaving, *filter(None, [self._refreshing])):
            task.cancel()
        await asyncio.gather(*(server.close() for server in self._servers.values()))

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self._refresh()

    async def _refresh(self) -> None:
        """Resolve the names. The known servers stay if that fails."""
        try:
            self._update(await resolve_targets(self._targets))
        except OSError as error:
            log.warning("%s cannot be resolved: %s", ", ".join(self._targets), error)

    def _update(self, targets: Collection[str]) -> None:
        """Connect to new servers; disconnect from the others when their last request has ended."""
        for target in [target for target in self._servers if target not in targets]:
            log.info("Triton at %s left", target)
            task = asyncio.create_task(self._servers.pop(target).close(when_idle=True))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for target in targets:
            if target not in self._servers:
                if self._changes:
                    log.info("Triton at %s joined", target)
                self._servers[target] = TritonServer(target)
