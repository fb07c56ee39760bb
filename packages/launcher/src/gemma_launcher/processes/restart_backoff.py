"""The delay before a failed service is restarted."""

from dataclasses import dataclass

HEALTHY_S = 120.0
"""A service that was ready for this long starts again with a failure count of zero."""

MAX_DELAY_S = 30.0


@dataclass(frozen=True)
class RestartBackoff:
    """The failures of one service.

    Args:
        failures: consecutive failures, the latest included.
    """

    failures: int = 0

    def after(self, healthy_s: float) -> "RestartBackoff":
        """The record after one more failure, which came after ``healthy_s`` seconds of readiness."""
        return RestartBackoff(1 if healthy_s >= HEALTHY_S else self.failures + 1)

    @property
    def delay_s(self) -> float:
        """0, 1, 2, 4, … seconds: the first restart is immediate."""
        return 0.0 if self.failures < 2 else min(2.0 ** min(self.failures - 2, 10), MAX_DELAY_S)
