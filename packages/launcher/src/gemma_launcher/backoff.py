"""How long to wait before a service is started again."""

from dataclasses import dataclass

HEALTHY_S = 120.0
"""Whatever ran this long without trouble starts again with a clean record."""

LONGEST_S = 30.0


@dataclass(frozen=True)
class Backoff:
    """The record of one service.

    Args:
        failures: in a row, the latest included.
    """

    failures: int = 0

    def after(self, healthy_s: float) -> "Backoff":
        """The record after one more failure, which came after ``healthy_s`` seconds of readiness."""
        return Backoff(1 if healthy_s >= HEALTHY_S else self.failures + 1)

    @property
    def delay_s(self) -> float:
        """0, 1, 2, 4, … seconds: the first time at once."""
        return 0.0 if self.failures < 2 else min(2.0 ** min(self.failures - 2, 10), LONGEST_S)
