"""How long a chunk of prompts takes, which is as long as anything else in a step may take."""

import math


class Pace:
    """Learns from the prompts that are run.

    Args:
        chunk: prompt tokens in one step.
    """

    def __init__(self, chunk: int) -> None:
        self._chunk, self._seconds_per_token = chunk, math.inf

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Note that so many tokens were run at once in that time."""
        self._seconds_per_token = min(self._seconds_per_token, seconds / tokens)

    @property
    def chunk_seconds(self) -> float:
        """The time of a chunk at the best pace so far, which never is too long; 0 before the first prompt."""
        known = self._seconds_per_token < math.inf
        return self._chunk * self._seconds_per_token if known else 0.0
