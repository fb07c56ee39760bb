"""The connections of clients: how many there may be, and how long each may take for what it does."""

import asyncio
import enum
import logging
import math
import time
from dataclasses import dataclass
from typing import Final, Protocol

log = logging.getLogger(__name__)
HEALTH_RESERVE: Final = 32
"""Connections over the limit on which only health checks are answered; anything else gets 503 there."""
WATCH_SECONDS: Final = 0.1
"""Between two looks at a connection whose client may have left."""
SWEEP_SECONDS: Final = 1.0
"""Between two looks at every connection."""
_LOG_SECONDS: Final = 10.0
_EVICT_AT_ONCE: Final = 16


class Phase(enum.Enum):
    """What a connection is doing."""

    HEAD = "waiting for the head of a request, or for the rest of it"
    ANSWERING = "a request is being answered"
    DRAINING = "the response is sent; what the client still sends is thrown away"
    IDLE = "waiting for the next request"


@dataclass(frozen=True)
class Timeouts:
    """Seconds.

    Args:
        head: from the start of the connection, or the first byte of a later request, to the end of the head.
        idle: between two requests.
        write: without the client reading anything of what waits for it.
        drain: after the response, for a request body that nobody wants.
    """

    head: float
    idle: float
    write: float
    drain: float = 5.0

    def of(self, phase: Phase) -> float:
        """How long a connection may stay in a phase. A request's own time is ``lifetime``'s."""
        match phase:
            case Phase.HEAD:
                return self.head
            case Phase.IDLE:
                return self.idle
            case Phase.DRAINING:
                return self.drain
            case Phase.ANSWERING:
                return math.inf


class Connection(Protocol):
    """What the pool asks of a connection."""

    phase: Phase

    def evict(self) -> None:
        """Close now: another connection needs the place."""

    def check(self, now: float) -> None:
        """Close when a time is over."""

    def watch(self, now: float) -> bool:
        """End the request when its client has left; whether to look again."""


class Admission(enum.Enum):
    """What a new connection gets."""

    SERVED = enum.auto()
    HEALTH_ONLY = enum.auto()
    REFUSED = enum.auto()


class Throttle:
    """Lets one event in ``seconds`` through, and counts the others."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = -math.inf
        self._count = 0

    def count(self) -> int:
        """Events since the last one that was let through, this one included; 0: not now."""
        self._count += 1
        if time.monotonic() < self._next:
            return 0
        self._next = time.monotonic() + self._seconds
        count, self._count = self._count, 0
        return count


class _Share:
    """Places for connections. A new one takes the place of the one that has waited longest for its client."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open: set[Connection] = set()
        self.waiting: dict[Connection, None] = {}
        """Those that answer nothing, the oldest first."""

    def take(self, connection: Connection) -> bool:
        if len(self.open) >= self.limit and not self.evict():
            return False
        self.open.add(connection)
        self.moved(connection)
        return True

    def moved(self, connection: Connection) -> None:
        self.waiting.pop(connection, None)
        if connection.phase is not Phase.ANSWERING:
            self.waiting[connection] = None

    def discard(self, connection: Connection) -> None:
        self.open.discard(connection)
        self.waiting.pop(connection, None)

    def evict(self) -> bool:
        oldest = next(iter(self.waiting), None)
        if oldest is None:
            return False
        self.discard(oldest)
        oldest.evict()
        return True


class ConnectionPool:
    """Every open connection.

    Args:
        limit: connections at a time, besides the ``HEALTH_RESERVE``.
        timeouts: see there.
    """

    def __init__(self, limit: int, timeouts: Timeouts) -> None:
        self.limit = limit
        self.timeouts = timeouts
        self._shares = {Admission.SERVED: _Share(limit), Admission.HEALTH_ONLY: _Share(HEALTH_RESERVE)}
        self._watched: set[Connection] = set()
        self._full = Throttle(_LOG_SECONDS)
        self._exhausted = Throttle(_LOG_SECONDS)

    def __len__(self) -> int:
        return sum(len(share.open) for share in self._shares.values())

    def admit(self, connection: Connection) -> Admission:
        """A place for a new connection."""
        admission = next(
            (found for found, share in self._shares.items() if share.take(connection)), Admission.REFUSED
        )
        if admission is not Admission.SERVED and (count := self._full.count()):
            log.warning(
                "%d connections answer requests, as many as API_MAX_CONNECTIONS and the limit on open files "
                "allow: %d more had no place",
                self.limit,
                count,
            )
        return admission

    def moved(self, connection: Connection) -> None:
        """The connection is in another phase."""
        for share in self._shares.values():
            if connection in share.open:
                share.moved(connection)

    def discard(self, connection: Connection) -> None:
        """The connection is closed."""
        self._watched.discard(connection)
        for share in self._shares.values():
            share.discard(connection)

    def watch(self, connection: Connection) -> None:
        """Nothing is read from this connection, so nothing tells that its client leaves: look yourself."""
        self._watched.add(connection)

    def out_of_descriptors(self, error: OSError) -> None:
        """A connection could not be accepted; makes room for some."""
        for _ in range(_EVICT_AT_ONCE):
            self._shares[Admission.SERVED].evict()
        if count := self._exhausted.count():
            log.error("no connection can be accepted: %s (%d times); they wait", error.strerror, count)

    async def run(self) -> None:
        """Watches over all connections, for ever."""
        loop = asyncio.get_running_loop()
        swept = loop.time()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = loop.time()
            self._watched -= {each for each in self._watched.copy() if not each.watch(now)}
            if now - swept >= SWEEP_SECONDS:
                swept = now
                for share in self._shares.values():
                    for each in share.open.copy():
                        each.check(now)
