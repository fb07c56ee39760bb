"""How often the tokens of drafts are accepted."""

MEMORY = 0.93
"""What an observation still counts after the next one: about the last 14 tokens count."""
PRIOR_TOKENS = 3.0
"""Observations that the expectation before any counts as."""
LOWEST, HIGHEST = 0.001, 0.999
"""Limits of the probability: after hundreds of right tokens the fraction would be rounded to 1."""
RECOVERY = 0.02
"""How fast the expectation comes back while nothing is drafted."""


class AcceptanceRate:
    """The probability that the next token of a draft is right if those before it were.

    Args:
        prior: before anything was observed.
    """

    def __init__(self, prior: float) -> None:
        self._prior = prior
        self._accepted, self._rejected = prior * PRIOR_TOKENS, (1 - prior) * PRIOR_TOKENS

    @property
    def value(self) -> float:
        """From ``LOWEST`` to ``HIGHEST``."""
        return min(max(self._accepted / (self._accepted + self._rejected), LOWEST), HIGHEST)

    def add(self, drafted: int, accepted: int) -> None:
        """A draft was checked. After its first wrong token nothing is known about the rest."""
        for _ in range(accepted):
            self._accepted, self._rejected = 1 + MEMORY * self._accepted, MEMORY * self._rejected
        if accepted < drafted:
            self._accepted, self._rejected = MEMORY * self._accepted, 1 + MEMORY * self._rejected

    def skip(self) -> None:
        """A draft was not checked, because it did not seem to pay: some later one is tried again."""
        total = self._accepted + self._rejected
        self._accepted += RECOVERY * (self._prior * total - self._accepted)
        self._rejected = total - self._accepted
