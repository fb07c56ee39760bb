import math

import pytest
import torch

from gemma_model.engine_types import MIN_LOGPROB
from gemma_model.sampling.logprobs import compute_logprobs


def test_they_are_those_of_the_softmax() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.15, 0.05]])) + 5.0
    first, second = compute_logprobs(logits, [1, 0], 2)
    assert first.logprob == pytest.approx(math.log(0.2))
    assert [token for token, _ in first.top] == [3, 2]
    assert [value for _, value in first.top] == pytest.approx([math.log(0.4), math.log(0.3)])
    assert second.top[0] == (0, second.logprob)


def test_zero_or_more_than_all_most_likely_tokens_may_be_requested() -> None:
    logits = torch.zeros(1, 3)
    assert compute_logprobs(logits, [0], 0)[0].top == ()
    assert len(compute_logprobs(logits, [0], 20)[0].top) == 3
    assert compute_logprobs(logits[:0], [], 5) == []


def test_impossible_tokens_have_a_finite_log_probability() -> None:
    (found,) = compute_logprobs(torch.tensor([[0.0, -torch.inf]]), [1], 2)
    assert found.logprob == MIN_LOGPROB
    assert found.top == ((0, 0.0), (1, MIN_LOGPROB))
