import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gemma_model.sampling.penalties import TokenCounts
from gemma_model.sampling.sampler import SamplingRow, sample_rows
from gemma_model.sampling.topk_topp_sampler import uniform

from .rows import counts_of, row

VOCAB = 1000


TEXT = np.array([1, 500, 998]), np.array([0, 1, 4], np.float32)
ADJUSTMENTS: list[dict[str, Any]] = [
    {},
    {"banned": frozenset({3, 77, 10**9})},
    {
        "token_counts": counts_of(*TEXT),
        "repetition_penalty": 1.5,
        "frequency_penalty": 0.5,
        "presence_penalty": 1.0,
    },
    {"bias": (np.array([4, 900, 5000]), np.array([3.0, -3.0, 100.0], np.float32))},
    {"disallowed": torch.arange(VOCAB) % 3 == 0},
]


def logits(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def draws(count: int, **rules: float) -> list[SamplingRow]:
    return [row(1.0, random=uniform(7, place), **rules) for place in range(count)]


def test_temperature_zero_takes_the_most_likely_token() -> None:
    rows = logits(5)
    assert sample_rows(rows.clone(), [row()] * 5) == rows.argmax(-1).tolist()


def test_a_banned_token_never_comes() -> None:
    rows = logits(1)
    first, second = rows[0].topk(2).indices.tolist()
    assert sample_rows(rows.clone(), [row(banned={first})]) == [second]
    assert sample_rows(rows.clone(), [row(1.0, top_k=1, random=0.5, banned={first})]) == [second]


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"top_k": 20, "top_p": 0.8},
        {"top_p": 0.9, "min_p": 0.05},
        {"top_k": 9, "top_p": 0.95, "min_p": 0.3},
    ],
)
def test_token_frequencies_match_their_probabilities(rules: dict[str, float]) -> None:
    own, count = logits(1)[0], 2000
    found = Counter(sample_rows(own.expand(count, -1).clone(), draws(count, **rules)))
    expected = _expected(own, int(rules.get("top_k", 0)), rules.get("top_p", 1.0), rules.get("min_p", 0.0))
    assert set(found) <= {token for token, p in enumerate(expected) if p > 0}
    for token, p in enumerate(expected):
        assert abs(found[token] / count - p) < 5 * math.sqrt(p * (1 - p) / count) + 1e-3


def _expected(row: Tensor, top_k: int, top_p: float, min_p: float) -> list[float]:
    """The same, as its definition reads."""
    ranked = sorted(range(VOCAB), key=lambda token: -float(row[token]))[: top_k or VOCAB]
    weights = [math.exp(float(row[token])) for token in ranked]
    probabilities = [w / sum(weights) for w in weights]
    kept: dict[int, float] = {}
    for token, p in zip(ranked, probabilities, strict=True):
        if sum(kept.values()) >= top_p or p < min_p * probabilities[0]:
            break
        kept[token] = p
    return [kept.get(token, 0.0) / sum(kept.values()) for token in range(VOCAB)]


def test_a_low_temperature_sharpens() -> None:
    own = logits(1)[0]
    cold = sample_rows(own.expand(200, -1).clone(), [row(0.05, random=uniform(1, i)) for i in range(200)])
    assert set(cold) == {int(own.argmax())}


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("rules", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}])
def test_the_ends_of_the_random_range_give_possible_tokens(extreme: float, rules: dict[str, float]) -> None:
    rows = logits(1)
    rows[0, VOCAB // 2 :] = -torch.inf
    token = sample_rows(rows, [row(1.0, random=extreme, **rules)])[0]
    assert token < VOCAB // 2


def test_a_row_does_not_depend_on_its_batch() -> None:
    kinds = [
        row(),
        *(
            row(t, top_k=k, top_p=p, min_p=m, random=uniform(3, k), **rest)
            for t in (0.5, 1.3)
            for k in (0, 1, 7, 64, 999)
            for p in (1.0, 0.9)
            for m in (0.0, 0.1)
            for rest in ADJUSTMENTS
        ),
    ]
    rows = logits(len(kinds))
    alone = [sample_rows(rows[i : i + 1].clone(), [kinds[i]])[0] for i in range(len(kinds))]
    assert sample_rows(rows.clone(), kinds) == alone
    assert sample_rows(rows[7:90].clone(), kinds[7:90]) == alone[7:90]


def test_ties_are_resolved_equally_in_any_batch() -> None:
    rows = logits(2).round()
    rows[1] = rows[0]
    wide, narrow = row(1.0, top_k=200, random=0.3), row(1.0, top_k=5, random=0.7)
    assert sample_rows(rows.clone(), [wide, narrow])[1] == sample_rows(rows[1:].clone(), [narrow])[0]


def test_random_numbers_are_even_and_repeat() -> None:
    numbers = [uniform(seed, place) for seed in (-5, 0, 2**63) for place in range(1000)]
    assert all(0 <= number < 1 for number in numbers)
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.03
    assert len(set(numbers)) == len(numbers)
    assert uniform(-5, 0) == numbers[0]
    assert len({uniform(1, 1, choice) for choice in range(100)} | {uniform(1, 11), uniform(11, 1)}) == 102


def test_banned_ids_outside_the_vocabulary_have_no_effect() -> None:
    rows = logits(1)
    assert sample_rows(rows.clone(), [row(banned={VOCAB, 2**31 - 1})]) == [int(rows.argmax())]


@pytest.mark.parametrize("repetition", [1.0, 0.7, 1.9])
@pytest.mark.parametrize("frequency", [0.0, -0.5, 1.1])
@pytest.mark.parametrize("presence", [0.0, -1.3, 2.0])
def test_penalties_and_bias_follow_their_definitions(
    repetition: float, frequency: float, presence: float
) -> None:
    """Token by token, with the definitions of Keskar et al. (2019) and of OpenAI's reference."""
    own, prompt, answer = logits(1, seed=4)[0, :40], [1, 2, 2, 3], [3, 5, 5, 5, 7]
    bias = {5: 2.5, 9: -4.0, 40: 100.0}
    expected = own.tolist()
    for token in range(40):
        if token in {*prompt, *answer}:
            logit = expected[token]
            expected[token] = logit / repetition if logit > 0 else logit * repetition
        expected[token] -= frequency * answer.count(token) + presence * (token in answer)
        expected[token] += bias.get(token, 0.0)
    tally = TokenCounts(prompt)
    for token in answer:
        tally.append(token)
    rules = row(
        token_counts=tally,
        repetition_penalty=repetition,
        frequency_penalty=frequency,
        presence_penalty=presence,
        bias=(np.array(list(bias)), np.array(list(bias.values()), np.float32)),
    )
    changed = own.clone().unsqueeze(0)
    assert sample_rows(changed, [rules]) == [int(torch.tensor(expected).argmax())]
    torch.testing.assert_close(changed[0], torch.tensor(expected))


def test_disallowed_tokens_stay_disallowed_with_any_bias() -> None:
    rows = logits(1)
    forbidden = torch.ones(VOCAB, dtype=torch.bool)
    forbidden[[8, 9]] = False
    bias = np.array([5, 9]), np.array([100.0, 50.0], np.float32)
    assert sample_rows(rows, [row(1.0, random=0.5, disallowed=forbidden, bias=bias)]) == [9]


def test_rows_without_parameters_are_unchanged() -> None:
    rows = logits(3)
    changed = rows.clone()
    sample_rows(changed, [row(), row(disallowed=torch.zeros(VOCAB, dtype=torch.bool), banned={1}), row(1.0)])
    torch.testing.assert_close(changed, rows, rtol=0, atol=0)


def test_a_tally_is_the_count_of_a_text() -> None:
    dice = random.Random(1)
    prompt, answer = ([dice.randrange(60) for _ in range(200)] for _ in range(2))
    tally, seen = TokenCounts(prompt), Counter[int]()
    for token in answer:
        tally.append(token)
        seen[token] += 1
        assert dict(zip(tally.ids.tolist(), tally.counts.tolist(), strict=True)) == {
            token: seen[token] for token in {*prompt, *seen}
        }


@pytest.mark.parametrize("temperature", [0.0, 1e-5, 2.0])
@pytest.mark.parametrize("repetition", [0.01, 10.0])
@pytest.mark.parametrize("penalty", [-2.0, 2.0])
@pytest.mark.parametrize(
    "rules", [{}, {"top_p": 1e-45}, {"min_p": 1.0}, {"top_k": 2**31 - 1}, {"min_p": 1e-320}]
)
def test_nothing_overflows_at_the_ends_of_the_ranges(
    temperature: float, repetition: float, penalty: float, rules: dict[str, float]
) -> None:
    """All that changes a logit at once, each as far as a request may go, on the largest logits."""
    rows = logits(1)
    rows[0, :500] = 30.0  # the soft cap of the published checkpoints
    rows[0, 500:] = -30.0
    seen = np.arange(VOCAB, dtype=np.int64), np.full(VOCAB, 32_768, np.float32)
    bias = (np.array([7, 900]), np.array([100.0, -100.0], np.float32))
    asked = row(
        temperature,
        random=0.5,
        token_counts=counts_of(*seen),
        repetition_penalty=repetition,
        frequency_penalty=penalty,
        presence_penalty=penalty,
        bias=bias,
        **rules,
    )
    (token,) = sample_rows(rows, [asked])
    assert torch.isfinite(rows).all() or temperature > 0  # the row is overwritten where it is drawn from
    assert token == 7 or (temperature == 2.0 and token < 500)
