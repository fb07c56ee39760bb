"""Remembers that a server fails, so that requests do not try it in vain."""

from typing import Final

FAILURES: Final = 2
"""Failures in a row after which the breaker opens."""
FIRST_SECONDS, LONGEST_SECONDS = 0.5, 2.0
"""Between two probes of a server that has failed; the time doubles with each failed probe."""


class CircuitBreaker:
    """Open while a server is not to be used. It closes when the server has responded."""

    def __init__(self) -> None:
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """Whether the server has failed ``FAILURES`` times in a row."""
        return self._failures >= FAILURES

    @property
    def probe_seconds(self) -> float:
        """Time until the next probe, while it is open."""
        probes = min(self._failures - FAILURES, 10)  # 2 ** 10 is beyond the longest time
        return float(min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** max(0, probes)))

    def failed(self) -> None:
        """A request or a probe has failed."""
        self._failures += 1

    def succeeded(self) -> None:
        """The server has responded."""
        self._failures = 0
