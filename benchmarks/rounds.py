"""Alternating rounds of measurements, A B A B; rounds with other load are discarded."""

import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.machine import busy

T = TypeVar("T")


@dataclass(frozen=True)
class Ratio:
    """One quantity over another, pair by pair."""

    median: float
    lowest: float
    highest: float

    @staticmethod
    def of(ours: Sequence[float], theirs: Sequence[float]) -> "Ratio":
        """Of the rounds' pairs, so that what changes slowly on a machine touches both alike."""
        each = [a / b for a, b in zip(ours, theirs, strict=True)]
        return Ratio(statistics.median(each), min(each), max(each))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


@dataclass
class Rounds(Generic[T]):
    """What each side measured, round by round.

    Args:
        kept: side → one result for each round.
        spoilt: how many rounds were thrown away.
        loads: the machine's use of itself around each kept round, shares of one core.
    """

    kept: dict[str, list[T]]
    spoilt: int
    loads: list[float]


async def alternate(
    sides: Mapping[str, Callable[[int], Awaitable[T]]], rounds: int, most_busy: float
) -> Rounds[T]:
    """Measures each side in turn, in every other round backwards, until so many rounds are good.

    Args:
        sides: name → measures once, given the number of the round.
        rounds: wanted; at most three times as many are tried.
        most_busy: a round is spoilt when the machine used more of a core than this before or after it.

    Raises:
        SystemExit: the machine has no quiet moment.
    """
    result: Rounds[T] = Rounds({name: [] for name in sides}, 0, [])
    for number in range(3 * rounds):
        before = busy()
        order = list(sides) if number % 2 == 0 else [*sides][::-1]
        measured = {name: await sides[name](number) for name in order}
        load = max(before, busy())
        if load > most_busy:
            result.spoilt += 1
            print(f"round {number + 1} is spoilt: {load:.2f} cores were in use by others", file=sys.stderr)
            continue
        result.loads.append(load)
        for name, value in measured.items():
            result.kept[name].append(value)
        if len(result.loads) == rounds:
            return result
    sys.exit(f"{result.spoilt} of {3 * rounds} rounds are spoilt by other work on this machine")
