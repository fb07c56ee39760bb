"""Several answers to one prompt, which is run once."""

from dataclasses import replace
from typing import Any

import pytest

from gemma_model.engine_types import EngineRequest, EngineSamplingParams

GREEDY = EngineSamplingParams(temperature=0.0)
HOT = EngineSamplingParams(temperature=1.3, seed=5)


def test_four_choices_take_one_prefill_and_the_first_is_the_only_one_of_one(checkpoint: Any) -> None:
    native, prompt = checkpoint.native(), checkpoint.with_picture(50, 1)
    (four,) = native.listened(EngineRequest(prompt, HOT, 16, n=4))
    answers = [four.choice(i) for i in range(4)]
    assert native.recorder.tokens_run(0) == 50
    assert [answers[0]] == checkpoint.native().answers([EngineRequest(prompt, HOT, 16)])
    assert len(set(map(tuple, answers))) == 4
    assert [len(answer) for answer in answers] == [16] * 4
    assert [(x.choice, x.finish) for x in four.steps if x.last] == [(i, "length") for i in range(4)]
    (fewer,) = checkpoint.native().listened(EngineRequest(prompt, HOT, 16, n=3))
    assert [fewer.choice(i) for i in range(3)] == answers[:3]


@pytest.mark.parametrize("length", [5, 32, 100])
def test_greedily_all_choices_are_the_same_and_transformers_own(each_checkpoint: Any, length: int) -> None:
    """Before and beyond the end of the rings; in slots that others have used."""
    native, prompt = each_checkpoint.native(chunk=7), each_checkpoint.text(length, 3)
    native.answers([EngineRequest(each_checkpoint.text(60, 9 + i), GREEDY, 5) for i in range(4)])
    (answer,) = native.listened(EngineRequest(prompt, GREEDY, 12, n=3))
    assert [answer.choice(i) for i in range(3)] == each_checkpoint.greedy([prompt], 12) * 3


def test_the_next_turn_continues_whichever_choice_was_taken(checkpoint: Any) -> None:
    native, prompt = checkpoint.native(), checkpoint.text(60, 2)
    (first,) = native.listened(EngineRequest(prompt, HOT, 20, n=3))
    for choice in range(3):
        turn = checkpoint.longer(prompt, *first.choice(choice), 11, 12)
        (answer,) = native.listened(EngineRequest(turn, GREEDY, 10))
        assert answer.end.cached_tokens == 60 + 20 - 1
        assert [answer.tokens] == checkpoint.greedy([turn], 10)


def test_a_cached_prompt_is_reused_for_all_choices(checkpoint: Any) -> None:
    native, prompt = checkpoint.native(), checkpoint.text(40, 2)
    (one,) = native.listened(EngineRequest(prompt, HOT, 1))
    (four,) = native.listened(EngineRequest(prompt, HOT, 6, n=4))
    assert native.recorder.tokens_run(1) == 1
    assert {step.cached_tokens for step in four.steps} == {39}
    assert four.choice(0)[:1] == one.tokens


@pytest.mark.parametrize(("length", "kept"), [(44, 40), (50, 46), (60, 50), (90, 80)])
def test_a_reused_prefix_is_copied_to_all_choices(checkpoint: Any, length: int, kept: int) -> None:
    """The slots have been used by longer prompts before."""
    native, before = checkpoint.native(chunk=7), checkpoint.text(length, 4)
    native.answers([EngineRequest(before, GREEDY, 8)])
    native.answers([EngineRequest(checkpoint.text(70, 9 + i), GREEDY, 5) for i in range(3)])  # other slots
    other = checkpoint.text(2, 77).token_ids
    prompt = replace(before, token_ids=before.token_ids[:kept] + other)
    (first,) = native.listened(EngineRequest(prompt, HOT, 20, n=3))
    assert {step.cached_tokens for step in first.steps} == {kept}
    assert [first.choice(i) for i in range(3)] == _fresh(checkpoint, EngineRequest(prompt, HOT, 20, n=3))
    for choice in range(3):
        turn = checkpoint.longer(prompt, *first.choice(choice), 11, 12)
        (answer,) = native.listened(EngineRequest(turn, GREEDY, 10))
        assert answer.end.cached_tokens == kept + 2 + 20 - 1
        assert [answer.tokens] == checkpoint.greedy([turn], 10)


def _fresh(checkpoint: Any, engine_request: EngineRequest) -> list[list[int]]:
    (answer,) = checkpoint.native().listened(engine_request)
    return [answer.choice(i) for i in range(engine_request.n)]


def test_each_choice_counts_its_own_tokens(checkpoint: Any) -> None:
    """A token that a penalty keeps from coming twice comes once in each."""
    never_again = HOT.model_copy(update={"presence_penalty": 1e6})
    (answer,) = checkpoint.native().listened(EngineRequest(checkpoint.text(10, 1), never_again, 30, n=4))
    for choice in range(4):
        assert len(set(answer.choice(choice))) == 30


def test_the_prompt_s_scores_come_once(checkpoint: Any) -> None:
    engine_request = EngineRequest(checkpoint.text(20, 1), HOT, 4, n=3, prompt_logprobs=1, logprobs=1)
    (answer,) = checkpoint.native().listened(engine_request)
    assert [(x.choice, len(x.prompt_logprobs)) for x in answer.steps if x.prompt_logprobs] == [(0, 19)]
    assert [len(answer.scores(choice)) for choice in range(3)] == [4] * 3


def test_log_probabilities_of_given_tokens_replace_those_of_the_most_likely(checkpoint: Any) -> None:
    every = tuple(range(0, 500, 3))
    asked = EngineRequest(checkpoint.text(20, 1), HOT, 4, logprobs=3, logprob_token_ids=every[::-1])
    given, likeliest = checkpoint.native().listened(asked, replace(asked, logprob_token_ids=()))
    assert given.tokens == likeliest.tokens
    for told, best in zip(given.scores(), likeliest.scores(), strict=True):
        assert [token_id for token_id, _ in told.top] == list(every[::-1])
        assert told.logprob == best.logprob
        known = dict(best.top)
        assert all(known.get(token_id, value) == value for token_id, value in told.top)
        assert max(value for _, value in told.top) <= max(known.values())


def test_a_request_for_many_choices_is_not_starved_by_later_ones(checkpoint: Any) -> None:
    native, four = checkpoint.native(), checkpoint.answer()
    native.engine.submit(EngineRequest(checkpoint.text(5, 1), GREEDY, 10), checkpoint.answer())
    native.engine.step()
    native.engine.submit(EngineRequest(checkpoint.text(5, 2), HOT, 3, n=4), four)
    later = [checkpoint.answer() for _ in range(20)]
    for i, answer in enumerate(later):
        native.engine.submit(EngineRequest(checkpoint.text(5, 10 + i), GREEDY, 3), answer)
    while not any(answer.steps for answer in later):
        native.engine.step()
    assert [len(four.choice(i)) for i in range(4)] == [3] * 4
    native.run()
    assert all(len(answer.tokens) == 3 for answer in later)
