"""No prompt starves, no short prompt waits for a long one, and no budget is wasted."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.prefill_budget import Demand, divide_budget
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine.sequence import Sequence

DEMANDS = st.lists(st.builds(Demand, st.integers(0, 60), st.integers(1, 5)), max_size=8)
CHUNK = 512


@given(DEMANDS, st.integers(1, 40))
def test_the_division_stays_within_demands_and_budget(demands: list[Demand], budget: int) -> None:
    shares = divide_budget(demands, budget)
    assert all(0 <= share <= demand.tokens for share, demand in zip(shares, demands, strict=True))
    spent = sum(share * demand.cost for share, demand in zip(shares, demands, strict=True))
    assert spent <= budget or sum(shares) == 1


@given(DEMANDS, st.integers(1, 40))
def test_no_budget_is_unused_while_a_prompt_could_use_it(demands: list[Demand], budget: int) -> None:
    shares = divide_budget(demands, budget)
    left = budget - sum(share * demand.cost for share, demand in zip(shares, demands, strict=True))
    assert all(
        share == demand.tokens or left < demand.cost for share, demand in zip(shares, demands, strict=True)
    )


@given(DEMANDS, st.integers(1, 40))
def test_the_oldest_gets_half(demands: list[Demand], budget: int) -> None:
    shares = divide_budget(demands, budget)
    for share, demand in zip(shares, demands, strict=True):
        if demand.tokens:
            assert share >= min(demand.tokens, max(1, (budget + 1) // 2 // demand.cost))
            break


@given(DEMANDS, st.integers(1, 40))
def test_short_prompts_run_at_once_and_completely(demands: list[Demand], budget: int) -> None:
    shares = divide_budget(demands, budget)
    need = [demand.tokens * demand.cost for demand in demands]
    for share, demand, own in zip(shares, demands, need, strict=True):
        if sum(other for other in need if other <= own) <= budget // 2:
            assert share == demand.tokens


def test_a_token_that_costs_more_than_the_budget_still_runs() -> None:
    assert divide_budget([Demand(5, 4), Demand(5, 4), Demand(3, 1)], 1) == [1, 0, 0]
    assert divide_budget([Demand(0, 1), Demand(5, 4)], 3) == [0, 1]


def scheduler(slots: int = 16) -> Scheduler:
    return Scheduler(KVSlots(slots), PrefixCache(1000, ring=512), 1000, CHUNK)


def request(number: int, prompt: int, prompt_cost: int = 1) -> list[Sequence]:
    token_keys = [(number, i) for i in range(prompt)]
    return [Sequence((number, 0), list(token_keys), max_tokens=2, prompt_cost=prompt_cost)]


def first_tokens(engine: Scheduler, steps: int) -> dict[int, int]:
    """In which step, counted from 1, each request has its first token."""
    answered: dict[int, int] = {}
    for step in range(1, steps + 1):
        plan = engine.plan()
        engine.commit(plan, {row.seq_id: [9] for row in plan.rows})
        answered |= {row.seq_id[0]: step for row in plan.rows if row.generated == 0}
    return answered


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    engine = scheduler()
    engine.submit(request(0, 32_000))
    first_tokens(engine, 1)
    engine.submit(request(1, 3))
    assert first_tokens(engine, 63) == {1: 1, 0: 62}


def test_a_long_prompt_is_not_starved_by_any_number_of_short_ones() -> None:
    engine, count = scheduler(), 1
    engine.submit(request(0, 32_000))
    answered: dict[int, int] = {}
    for step in range(1, 200):
        while engine.waiting < 16:
            engine.submit(request(count, 200))
            count += 1
        answered |= dict.fromkeys(first_tokens(engine, 1), step)
    assert answered[0] == 32_000 // (CHUNK // 2)
    assert len(answered) > 199 * (CHUNK // 2) // 200


def test_a_long_prompt_is_only_delayed_by_older_ones() -> None:
    engine = scheduler()
    for number in range(16):
        engine.submit(request(number, 4 * CHUNK))
    answered = first_tokens(engine, 65)
    for number in range(16):
        assert answered[number] <= 2 * 4 * (number + 1)
    assert max(answered.values()) == 4 * 16


@pytest.mark.parametrize("cost", [2, 4, 7])
def test_a_prompt_whose_tokens_cost_more_runs_fewer_of_them(cost: int) -> None:
    engine = scheduler()
    engine.submit(request(0, 2000, prompt_cost=cost))
    (prefill,) = engine.plan().prefills
    assert prefill.stop == CHUNK // cost
