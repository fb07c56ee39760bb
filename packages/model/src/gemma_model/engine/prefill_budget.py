"""Divides a step's budget of prompt tokens among the prompts that are being run."""

from collections.abc import Sequence
from typing import NamedTuple


class Demand(NamedTuple):
    """The tokens of a prompt that can run now, and how much of the budget each takes."""

    tokens: int
    cost: int = 1


def divide_budget(demands: Sequence[Demand], budget: int) -> list[int]:
    """Divide a step's budget among prompts: half of it to the oldest, the rest to the shortest.

    The oldest prompt that can run gets what it needs, up to half of the budget (rounded up). The rest goes to
    the prompts with the least left to run, the older first if two are equal. So every delay is bounded:

    - A prompt runs at once if it and all shorter ones together take at most half of the budget.
    - The oldest prompt advances by half of the budget in each step, and every prompt becomes the oldest.
    - No budget is left unused while a prompt could use it.

    Args:
        demands: of each prompt, in order of admission, the oldest first; no tokens where it cannot run now.
        budget: of the step.

    Returns:
        How many tokens each prompt runs. They cost at most the budget, unless one token alone costs more:
        then the oldest prompt runs one.
    """
    given = [0] * len(demands)
    oldest = next((place for place, demand in enumerate(demands) if demand.tokens), None)
    if oldest is None:
        return given
    tokens, cost = demands[oldest]
    given[oldest] = min(tokens, max(1, -(-budget // 2) // cost))
    left = budget - given[oldest] * cost
    for place in sorted(range(len(demands)), key=lambda place: demands[place].tokens * demands[place].cost):
        tokens, cost = demands[place]
        more = max(0, min(tokens - given[place], left // cost))
        given[place] += more
        left -= more * cost
    return given
