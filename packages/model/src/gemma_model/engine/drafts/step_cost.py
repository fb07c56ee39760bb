"""What a row costs in a step, and how many tokens of each draft are worth their rows."""

from collections.abc import Sequence
from typing import NamedTuple

PRIOR_SHARE = 0.1
"""The time of a row, as a share of that of a step without rows, before any is measured."""
PRIOR_WEIGHT = 0.5
"""What that counts for, compared with the variance of the number of rows."""
MEMORY = 0.98
"""What an observation still counts after the next one."""
LONGEST = 2.0
"""A step that takes longer than this multiple of its estimate was interrupted by something else."""
WARM_UP = 8
"""Steps before such a comparison."""
MARGIN = 1.15
"""A row must bring this much more than it costs: both are estimates."""
ROUNDS = 3


class StepCost:
    """Estimates the time of a step as a constant and a part for each row, from the last steps."""

    def __init__(self) -> None:
        self._count = 0
        self._weight = self._rows = self._squares = self._seconds = self._products = 0.0

    def add(self, rows: int, seconds: float) -> None:
        """A step that did nothing but decode had so many rows and took this time."""
        if self._count >= WARM_UP:
            seconds = min(seconds, LONGEST * self.seconds(rows))
        self._count += 1
        self._weight = MEMORY * self._weight + 1
        self._rows = MEMORY * self._rows + rows
        self._squares = MEMORY * self._squares + rows * rows
        self._seconds = MEMORY * self._seconds + seconds
        self._products = MEMORY * self._products + rows * seconds

    def seconds(self, rows: int) -> float:
        """The estimated time of a step; in arbitrary units before the first step."""
        if not self._count:
            return 1 + PRIOR_SHARE * rows
        mean_rows, mean = self._rows / self._weight, self._seconds / self._weight
        return max(mean + self.row_seconds * (rows - mean_rows), mean / 10)

    @property
    def row_seconds(self) -> float:
        """The estimated time of one more row."""
        if not self._count:
            return PRIOR_SHARE
        mean_rows, mean = self._rows / self._weight, self._seconds / self._weight
        variance = self._squares / self._weight - mean_rows**2
        covariance = self._products / self._weight - mean_rows * mean
        prior = PRIOR_SHARE * mean / (1 + PRIOR_SHARE * mean_rows)
        slope = (covariance + PRIOR_WEIGHT * prior) / (variance + PRIOR_WEIGHT)
        return min(max(slope, prior / 10), mean / mean_rows)


class Candidate(NamedTuple):
    """A draft that could be checked: the probability of each token if those before are right, and tokens."""

    rate: float
    tokens: int


def lowest_rate(cost: StepCost, rows: int) -> float:
    """The acceptance from which on the first token of a draft is worth its row if nobody else drafts."""
    return _price(cost, rows, float(rows))


def choose_lengths(candidates: Sequence[Candidate], cost: StepCost, rows: int) -> list[int]:
    """How many tokens of each draft to check so that most tokens are expected for the time.

    A token is worth its row if it brings more than the step brings on average in the time of a row. The
    better the drafts, the higher is this average, so it is computed again with them (Dinkelbach's method).

    Args:
        candidates: the drafts.
        cost: of a row.
        rows: of the step without drafts.
    """
    lengths = [0] * len(candidates)
    for _ in range(ROUNDS):
        expected = rows + sum(map(expected_tokens, candidates, lengths))
        price = _price(cost, rows + sum(lengths), expected)
        lengths = [_length(candidate, price) for candidate in candidates]
    return lengths


def _price(cost: StepCost, rows: int, tokens: float) -> float:
    """The tokens that a row must bring."""
    return MARGIN * cost.row_seconds * tokens / cost.seconds(rows)


def _length(candidate: Candidate, price: float) -> int:
    length, probability = 0, candidate.rate
    while length < candidate.tokens and probability > price:
        length, probability = length + 1, probability * candidate.rate
    return length


def expected_tokens(candidate: Candidate, length: int) -> float:
    """The tokens of a draft that are right, on average."""
    rate = candidate.rate
    return rate * (1 - rate**length) / (1 - rate)
