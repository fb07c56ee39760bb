"""How long drafts are: by their acceptance, and by what a row of a step costs."""

import random

import pytest

from gemma_model.engine.drafts.acceptance import AcceptanceRate
from gemma_model.engine.drafts.draft_source import Draft
from gemma_model.engine.drafts.drafter import Drafter
from gemma_model.engine.drafts.step_cost import (
    Candidate,
    StepCost,
    choose_lengths,
    expected_tokens,
    lowest_rate,
)


def measured(constant: float, row: float, noise: float = 0.0, most: int = 12) -> StepCost:
    cost, dice = StepCost(), random.Random(1)
    for _ in range(300):
        rows = dice.randint(1, most)
        cost.add(rows, (constant + row * rows) * dice.uniform(1 - noise, 1 + noise))
    return cost


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_cost_of_a_row_is_that_of_the_last_steps(noise: float) -> None:
    cost = measured(0.1, 0.01, noise)
    assert cost.row_seconds == pytest.approx(0.01, rel=0.05 + 2 * noise)
    assert cost.seconds(20) == pytest.approx(0.3, rel=0.05 + noise)


def test_steps_of_one_size_say_nothing_about_a_row() -> None:
    cost = StepCost()
    before = cost.row_seconds / cost.seconds(1)
    for _ in range(100):
        cost.add(1, 0.2)
    assert cost.row_seconds / cost.seconds(1) == pytest.approx(before)


def test_an_interrupted_step_is_not_believed() -> None:
    cost = measured(0.1, 0.01)
    cost.add(12, 30.0)
    assert cost.row_seconds == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("row", [0.003, 0.02, 0.2])
def test_the_length_gives_about_the_most_tokens_for_the_time(rate: float, row: float) -> None:
    cost, candidate = measured(0.1, row), Candidate(rate, 16)

    def speed(length: int) -> float:
        return (1 + expected_tokens(candidate, length)) / cost.seconds(1 + length)

    (length,) = choose_lengths([candidate], cost, rows=1)
    assert speed(length) >= 0.93 * max(map(speed, range(17)))
    assert speed(length) >= speed(0)


def test_many_rows_whose_time_counts_get_no_drafts() -> None:
    cost = measured(0.01, 0.1, most=32)
    assert choose_lengths([Candidate(0.8, 16)] * 16, cost, rows=16) == [0] * 16
    assert lowest_rate(cost, rows=16) > 0.8
    assert lowest_rate(measured(0.1, 0.001), rows=16) < 0.3


def test_acceptance_follows_the_last_drafts_and_comes_back_slowly() -> None:
    rate = AcceptanceRate(0.5)
    for _ in range(10):
        rate.add(4, 0)
    low = rate.value
    assert low < 0.15
    for _ in range(20):
        rate.skip()
    assert low < rate.value < 0.4
    for _ in range(5):
        rate.add(8, 8)
    assert 0.9 < rate.value < 1
    rate.add(3, 1)
    assert rate.value < 0.95


class Fixed:
    def __init__(self, kind: str, *token_ids: int) -> None:
        self.kind, self.token_ids, self.output = kind, token_ids, list[int]()

    def append(self, token_id: int) -> None:
        self.output.append(token_id)

    def propose(self, limit: int) -> Draft:
        if not self.token_ids:
            raise RuntimeError("broken")
        return Draft(self.token_ids[:limit])


def test_the_best_source_drafts_and_is_told_what_became_of_it() -> None:
    grammar, text, broken = Fixed("grammar", 1, 2), Fixed("ngram", 7, 8, 9), Fixed("prediction")
    drafter = Drafter([grammar, text, broken])  # type: ignore[list-item]
    proposal = drafter.propose(16, 0.0)
    assert proposal is not None
    assert (proposal.kind, proposal.draft.token_ids) == ("grammar", (1, 2))
    drafter.check(proposal, 2)
    assert drafter.append([1, 5]) == ("grammar", 2, 1)
    assert grammar.output == text.output == [1, 5]
    assert drafter.append([6]) is None
    assert drafter.propose(16, 0.95) is None
    for _ in range(5):
        drafter.check(proposal, 2)
        drafter.append([3])
    assert drafter.propose(16, 0.3).kind == "ngram"  # type: ignore[union-attr]


def test_tokens_of_a_prediction_are_counted() -> None:
    drafter = Drafter([Fixed("prediction", 1, 2, 3)])  # type: ignore[list-item]
    for accepted in (3, 1):
        proposal = drafter.propose(16, 0.0)
        assert proposal is not None
        drafter.check(proposal, 3)
        drafter.append([1, 2, 3, 4][: accepted + 1])
    assert drafter.prediction_tokens == (4, 2)


@pytest.mark.parametrize("right", [True, False])
def test_a_probability_is_never_rounded_to_certainty(right: bool) -> None:
    """After 500 right tokens the fraction of wrong ones is smaller than fp64 can add to 1."""
    rate = AcceptanceRate(0.5)
    for _ in range(5000):
        rate.add(8, 8 if right else 0)
    assert 0 < rate.value < 1
    assert 0 < expected_tokens(Candidate(rate.value, 16), 16) <= 16
