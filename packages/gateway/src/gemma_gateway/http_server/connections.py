"""Limits on the number of client connections, and the timeouts of each."""

import asyncio
import enum
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

log = logging.getLogger(__name__)
HEALTH_RESERVE: Final = 32
"""Connections over the limit that serve only health checks; other requests get 503."""
WATCH_SECONDS: Final = 0.1
"""Between two checks of a connection that is not being read, see ``ConnectionPool.watch``."""
SWEEP_SECONDS: Final = 1.0
"""Between two timeout checks of all connections."""
_LOG_SECONDS: Final = 10.0
_EVICT_AT_ONCE: Final = 16


class ConnectionPhase(enum.Enum):
    """The state of a connection."""

    HEAD = "waiting for the head of a request"
    RESPONDING = "a request is in progress"
    DRAINING = "the response is sent; further data is discarded"
    IDLE = "waiting for the next request"


@dataclass(frozen=True)
class ConnectionTimeouts:
    """Seconds.

    Args:
        head: from the start of the connection, or the first byte of a later request, to the end of the head.
        idle: between two requests.
        write: while data waits to be sent and the client reads nothing.
        drain: after the response, while the client still sends.
    """

    head: float
    idle: float
    write: float
    drain: float = 5.0

    def of(self, phase: ConnectionPhase) -> float:
        """How long a connection may stay in a phase. ``middleware.deadlines`` limits a request's own time."""
        match phase:
            case ConnectionPhase.HEAD:
                return self.head
            case ConnectionPhase.IDLE:
                return self.idle
            case ConnectionPhase.DRAINING:
                return self.drain
            case ConnectionPhase.RESPONDING:
                return math.inf


class Connection(Protocol):
    """What the pool needs from a connection."""

    phase: ConnectionPhase

    def evict(self) -> None:
        """Close now, in favour of another connection."""

    def check(self, now: float) -> None:
        """Close if a timeout has expired."""

    def watch(self, now: float) -> bool:
        """End the request if its client has disconnected. Returns whether to check again."""


class Admission(enum.Enum):
    """How a new connection is treated."""

    SERVED = enum.auto()
    HEALTH_ONLY = enum.auto()
    REFUSED = enum.auto()


class Throttle:
    """Limits log lines: lets one event per ``seconds`` of ``clock`` through, and counts the others."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._next = -math.inf
        self._count = 0

    def count(self) -> int:
        """Counts an event. Returns the number since the last one that was let through; 0: do not log."""
        self._count += 1
        if self._clock() < self._next:
            return 0
        self._next = self._clock() + self._seconds
        count, self._count = self._count, 0
        return count


class _Share:
    """A number of connections. A new one may evict the one that has waited longest for its client."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open: set[Connection] = set()
        self.waiting: dict[Connection, None] = {}
        """Those without a request in progress, the oldest first."""

    def take(self, connection: Connection) -> bool:
        if len(self.open) >= self.limit and not self.evict():
            return False
        self.open.add(connection)
        self.moved(connection)
        return True

    def moved(self, connection: Connection) -> None:
        self.waiting.pop(connection, None)
        if connection.phase is not ConnectionPhase.RESPONDING:
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
        timeouts: of every connection.
    """

    def __init__(self, limit: int, timeouts: ConnectionTimeouts) -> None:
        self.limit = limit
        self.timeouts = timeouts
        self._shares = {Admission.SERVED: _Share(limit), Admission.HEALTH_ONLY: _Share(HEALTH_RESERVE)}
        self._watched: set[Connection] = set()
        self._full = Throttle(_LOG_SECONDS)
        self._exhausted = Throttle(_LOG_SECONDS)

    def __len__(self) -> int:
        return sum(len(share.open) for share in self._shares.values())

    def admit(self, connection: Connection) -> Admission:
        """Admits a new connection, evicting another one if necessary."""
        admission = next(
            (found for found, share in self._shares.items() if share.take(connection)), Admission.REFUSED
        )
        if admission is not Admission.SERVED and (count := self._full.count()):
            log.warning(
                "the limit of %d connections (API_MAX_CONNECTIONS, open files) is reached: %d refused",
                self.limit,
                count,
            )
        return admission

    def moved(self, connection: Connection) -> None:
        """Called when a connection has changed its phase."""
        for share in self._shares.values():
            if connection in share.open:
                share.moved(connection)

    def discard(self, connection: Connection) -> None:
        """Called when a connection is closed."""
        self._watched.discard(connection)
        for share in self._shares.values():
            share.discard(connection)

    def watch(self, connection: Connection) -> None:
        """Starts checking the TCP state of a connection.

        asyncio notifies a disconnect only while it reads: not while reading is paused, and not after the
        client has closed its sending side.
        """
        self._watched.add(connection)

    def out_of_descriptors(self, error: OSError) -> None:
        """Called when a connection could not be accepted; evicts some others."""
        for _ in range(_EVICT_AT_ONCE):
            self._shares[Admission.SERVED].evict()
        if count := self._exhausted.count():
            log.error("connections cannot be accepted: %s (%d times)", error.strerror, count)

    async def run(self) -> None:
        """Checks all connections until cancelled."""
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
