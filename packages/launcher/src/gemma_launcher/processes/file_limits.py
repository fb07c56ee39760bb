"""Whether the limit on open files allows enough client connections."""

import resource
from dataclasses import dataclass
from typing import Final

RESERVED_FILES: Final = 128
"""Files that the gateway reserves for other uses than client connections; at least a quarter of the limit."""
MAX_CONNECTIONS: Final = 10_000
"""Client connections, unless ``API_MAX_CONNECTIONS`` is set."""
MIN_CONNECTIONS: Final = 500
"""Fewer connections cause a warning even if ``API_MAX_CONNECTIONS`` is not set."""
_ADVICE: Final = "raise it with `ulimit -Hn`, LimitNOFILE= of systemd or --ulimit nofile= of Docker"


@dataclass(frozen=True)
class FileLimits:
    """The hard limit on open files, up to which the gateway raises its soft limit.

    Args:
        limit: the hard limit; ``None``: unlimited.
        wanted: ``API_MAX_CONNECTIONS``.
    """

    limit: int | None
    wanted: int

    @classmethod
    def read(cls, wanted: int) -> "FileLimits":
        """The limit of this process, which child processes inherit."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return cls(None if hard == resource.RLIM_INFINITY else hard, wanted)

    @property
    def connections(self) -> int:
        """The client connections that the gateway will allow."""
        if self.limit is None:
            return self.wanted or MAX_CONNECTIONS
        if self.wanted:
            return min(self.wanted, max(1, self.limit - RESERVED_FILES))
        return max(1, min(MAX_CONNECTIONS, self.limit - max(RESERVED_FILES, self.limit // 4)))

    @property
    def warning(self) -> str:
        """A warning if the limit is too low; otherwise empty."""
        if self.connections < self.wanted:
            return (
                f"API_MAX_CONNECTIONS={self.wanted} needs a limit of {self.wanted + RESERVED_FILES} open "
                f"files; the limit is {self.limit}, which allows {self.connections} connections: {_ADVICE}"
            )
        if not self.wanted and self.connections < MIN_CONNECTIONS:
            return (
                f"the limit of {self.limit} open files allows only {self.connections} client connections: "
                f"{_ADVICE}"
            )
        return ""
