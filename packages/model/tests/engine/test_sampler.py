import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from gemma_model.engine.sampler import Draw, sample, uniform

VOCAB = 1000


def logits(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def draws(count: int, **rules: float) -> list[Draw]:
    return [Draw(temperature=1.0, random=uniform(7, place), **rules) for place in range(count)]  # type: ignore[arg-type]


def test_temperature_zero_takes_the_likeliest() -> None:
    rows = logits(5)
    assert sample(rows.clone(), [Draw()] * 5) == rows.argmax(-1).tolist()


def test_a_banned_token_never_comes() -> None:
    rows = logits(1)
    first, second = rows[0].topk(2).indices.tolist()
    assert sample(rows.clone(), [Draw(banned={first})]) == [second]
    assert sample(rows.clone(), [Draw(1.0, top_k=1, random=0.5, banned={first})]) == [second]


@pytest.mark.parametrize("rules", [{}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 20, "top_p": 0.8}])
def test_tokens_come_as_often_as_their_probability_says(rules: dict[str, float]) -> None:
    row, count = logits(1)[0], 4000
    found = Counter(sample(row.expand(count, -1).clone(), draws(count, **rules)))
    expected = _expected(row, int(rules.get("top_k", 0)), rules.get("top_p", 1.0))
    assert set(found) <= {token for token, p in enumerate(expected) if p > 0}
    for token, p in enumerate(expected):
        assert abs(found[token] / count - p) < 5 * math.sqrt(p * (1 - p) / count) + 1e-3


def _expected(row: Tensor, top_k: int, top_p: float) -> list[float]:
    """The same, as its definition reads."""
    ranked = sorted(range(VOCAB), key=lambda token: -float(row[token]))[: top_k or VOCAB]
    weights = [math.exp(float(row[token])) for token in ranked]
    probabilities = [w / sum(weights) for w in weights]
    kept: dict[int, float] = {}
    for token, p in zip(ranked, probabilities, strict=True):
        if sum(kept.values()) >= top_p:
            break
        kept[token] = p
    return [kept.get(token, 0.0) / sum(kept.values()) for token in range(VOCAB)]


def test_a_low_temperature_sharpens() -> None:
    row = logits(1)[0]
    cold = sample(row.expand(200, -1).clone(), [Draw(0.05, random=uniform(1, i)) for i in range(200)])
    assert set(cold) == {int(row.argmax())}


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("rules", [{}, {"top_k": 3}, {"top_p": 0.5}])
def test_the_ends_of_the_random_range_give_possible_tokens(extreme: float, rules: dict[str, float]) -> None:
    row = logits(1)
    row[0, VOCAB // 2 :] = -torch.inf
    token = sample(row, [Draw(1.0, random=extreme, **rules)])[0]  # type: ignore[arg-type]
    assert token < VOCAB // 2


def test_a_row_does_not_depend_on_its_company() -> None:
    kinds = [
        Draw(),
        *(Draw(t, k, p, uniform(3, k)) for t in (0.5, 1.3) for k in (0, 1, 7, 64, 999) for p in (1.0, 0.9)),
    ]
    rows = logits(len(kinds))
    alone = [sample(rows[i : i + 1].clone(), [kinds[i]])[0] for i in range(len(kinds))]
    assert sample(rows.clone(), kinds) == alone


def test_ties_are_broken_alike_in_any_company() -> None:
    rows = logits(2).round()
    rows[1] = rows[0]
    wide, narrow = Draw(1.0, top_k=200, random=0.3), Draw(1.0, top_k=5, random=0.7)
    assert sample(rows.clone(), [wide, narrow])[1] == sample(rows[1:].clone(), [narrow])[0]


def test_random_numbers_are_even_and_repeat() -> None:
    numbers = [uniform(seed, place) for seed in (-5, 0, 2**63) for place in range(1000)]
    assert all(0 <= number < 1 for number in numbers)
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.03
    assert len(set(numbers)) == len(numbers)
    assert uniform(-5, 0) == numbers[0]
