"""Whether the limit on open files leaves enough connections to the clients of the API."""

import resource
from dataclasses import dataclass
from typing import Final

RESERVE: Final = 128
"""Files that the gateway keeps for everything but connections of clients; at least a quarter of the limit."""
MOST: Final = 10_000
"""Connections, unless the operator says otherwise."""
FEW: Final = 500
"""Connections; fewer are worth a warning even when nobody asked for more."""
_ADVICE: Final = "raise it with `ulimit -Hn`, LimitNOFILE= of systemd or --ulimit nofile= of Docker"


@dataclass(frozen=True)
class OpenFiles:
    """The hard limit on open files, to which the gateway raises its own, and what it allows.

    Args:
        limit: on open files; none: there is none.
        wanted: ``API_MAX_CONNECTIONS``.
    """

    limit: int | None
    wanted: int

    @classmethod
    def read(cls, wanted: int) -> "OpenFiles":
        """The limit of this process, which its children inherit."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return cls(None if hard == resource.RLIM_INFINITY else hard, wanted)

    @property
    def connections(self) -> int:
        """The connections of clients that the gateway will allow."""
        if self.limit is None:
            return self.wanted or MOST
        if self.wanted:
            return min(self.wanted, max(1, self.limit - RESERVE))
        return max(1, min(MOST, self.limit - max(RESERVE, self.limit // 4)))

    @property
    def warning(self) -> str:
        """What is wrong with the limit, in one sentence; empty: nothing."""
        if self.connections < self.wanted:
            return (
                f"API_MAX_CONNECTIONS={self.wanted} needs a limit of {self.wanted + RESERVE} open files; it "
                f"is {self.limit}, so that {self.connections} connections may be open: {_ADVICE}"
            )
        if not self.wanted and self.connections < FEW:
            return (
                f"the limit of {self.limit} open files allows {self.connections} connections of clients at a "
                f"time: {_ADVICE}"
            )
        return ""
