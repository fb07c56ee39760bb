from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gemma_model.structured_output.bitmask import disallowed_tokens

STOPS = frozenset({1, 70, 10**6})


class ConstantMask:
    """A constraint with a constant bitmask."""

    def __init__(self, *words: int) -> None:
        self._words = np.array(words, np.uint32).view(np.int32)

    def allowed(self) -> npt.NDArray[np.int32]:
        return self._words

    def advance(self, token_id: int) -> None:
        raise AssertionError("no token was sampled")

    def fork(self) -> "ConstantMask":
        return self


def allowed(words: ConstantMask, stop_allowed: bool = True, vocab: int = 80) -> list[int]:
    mask: Any = disallowed_tokens(words, stop_allowed, STOPS, vocab)
    assert mask.shape == (vocab,)
    return (~mask).nonzero().flatten().tolist()  # type: ignore[no-any-return]


def test_each_bit_of_the_mask_is_a_token() -> None:
    assert allowed(ConstantMask(0b1011, 1 << 31, 0b100)) == [0, 1, 3, 63, 66]


def test_ids_without_a_token_are_disallowed() -> None:
    assert allowed(ConstantMask(0b10)) == [1]
    assert allowed(ConstantMask(0b10, 0, 0xFFFFFFFF), vocab=66) == [1, 64, 65]


def test_a_stop_token_is_disallowed_unless_it_is_the_only_allowed_token() -> None:
    assert allowed(ConstantMask(0b111, 0, 1 << 6), stop_allowed=False) == [0, 2]
    assert allowed(ConstantMask(0b010, 0, 1 << 6), stop_allowed=False) == [1, 70]


def test_a_constraint_that_allows_no_token_is_an_error() -> None:
    with pytest.raises(ValueError, match="allows no token"):
        allowed(ConstantMask(0, 0, 0))
