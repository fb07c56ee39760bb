"""How long a chunk of prompts takes, so that an encoder takes no longer."""

import math


class PrefillPace:
    """Estimates how long a chunk of prompts takes; an encoder may take as long in one step.

    Args:
        chunk: prompt tokens in one step.
    """

    def __init__(self, chunk: int) -> None:
        self._chunk, self._seconds_per_token = chunk, math.inf

    def add(self, tokens: int, seconds: float) -> None:
        """A prefill of this many tokens took this time."""
        self._seconds_per_token = min(self._seconds_per_token, seconds / tokens)

    @property
    def chunk_seconds(self) -> float:
        """The time of a chunk at the best pace so far; 0 before the first prompt."""
        known = self._seconds_per_token < math.inf
        return self._chunk * self._seconds_per_token if known else 0.0
