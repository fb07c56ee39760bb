"""Drafts from repeated text: of the output itself, and of the client's prediction."""

import random

import pytest

from gemma_model.engine.drafts.token_lookup import (
    LONG_MATCH,
    MIN_MATCH,
    PredictionLookup,
    PromptLookup,
    TokenIndex,
)


def test_what_followed_the_longest_equal_suffix_is_drafted() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 50, 51, 9, 2, 3, 4, 60, 61, 7, 7])
    for token in (1, 2, 3, 4):
        lookup.append(token)
    assert list(lookup.propose(2).token_ids) == [50, 51], "not 60, which only three equal tokens precede"


def test_of_equal_suffixes_the_last_one_counts() -> None:
    lookup = PromptLookup([0, 2, 3, 4, 50, 1, 2, 3, 4, 60, 9, 2, 3, 4])
    assert list(lookup.propose(1).token_ids) == [60]


def test_a_short_suffix_is_no_evidence() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 8, 2, 3])
    assert not lookup.propose(5).token_ids
    assert not PromptLookup([1, 1]).propose(5).token_ids
    assert not PromptLookup([]).propose(5).token_ids


def test_a_draft_that_reaches_the_end_of_the_text_repeats_itself() -> None:
    lookup = PromptLookup([5, 6, 7, 5, 6, 7])
    assert list(lookup.propose(7).token_ids) == [5, 6, 7, 5, 6, 7, 5]


def test_long_matches_are_better_evidence() -> None:
    text = list(range(100, 100 + LONG_MATCH + 2))
    assert PromptLookup([*text, 1, *text[-LONG_MATCH:]]).propose(1).evidence == 1
    assert PromptLookup([*text, 1, *text[-MIN_MATCH:]]).propose(1).evidence == 0


def test_a_prediction_is_drafted_from_its_beginning() -> None:
    lookup = PredictionLookup([1, 2, 3, 4])
    assert lookup.propose(3).token_ids == [1, 2, 3]
    lookup.append(1)
    assert lookup.propose(9).token_ids == [2, 3, 4]


@pytest.mark.parametrize("written", [[9], [9, 9, 9], [3, 9], []])
def test_after_a_difference_a_prediction_goes_on_where_it_agrees_again(written: list[int]) -> None:
    """A token is replaced, text is inserted, or left out."""
    predicted = [*range(10, 20), 3, *range(20, 40)]
    lookup = PredictionLookup(predicted)
    for token in [*range(10, 20), *written, 20, 21]:
        lookup.append(token)
    assert lookup.propose(3).token_ids == [22, 23, 24]


def test_of_equal_places_in_a_prediction_the_next_one_counts() -> None:
    predicted = [1, 2, 30, 1, 2, 31, 1, 2, 32, 5, 5, 1, 2, 33]
    lookup = PredictionLookup(predicted)
    for token in (1, 2, 30, 8, 1, 2):
        lookup.append(token)
    assert lookup.propose(1).token_ids == [31]


def test_a_prediction_that_is_used_up_or_wrong_drafts_nothing() -> None:
    lookup = PredictionLookup([1, 2, 3])
    for token in (1, 2, 3):
        lookup.append(token)
    assert lookup.propose(5).token_ids == []
    lost = PredictionLookup([1, 2, 3])
    lost.append(7)
    assert not lost.propose(5).token_ids


def test_the_index_finds_what_a_search_of_the_text_finds() -> None:
    dice = random.Random(1)
    for _ in range(50):
        text = [dice.randrange(3) for _ in range(dice.randrange(2, 60))]
        index = TokenIndex(text, 2)
        place, length = index.find(index.token_ids, near=len(text))
        places = {
            end: next(n for n in range(33) if n == min(32, end) or text[end - 1 - n] != text[-1 - n])
            for end in range(2, len(text))
        }
        longest = max((n for n in places.values() if n >= 2), default=0)
        assert length == longest
        assert not length or place == max(end for end, n in places.items() if n == longest)
