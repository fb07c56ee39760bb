"""Several choices of one request, and their constraints, with a model of ten lines."""

import numpy as np
import numpy.typing as npt
import pytest

from gemma_wire import InvalidRequest

from .counting import Listener, idle, make_engine, make_request


def test_every_choice_gets_its_own_tokens_and_one_end() -> None:
    engine, _ = make_engine(slots=3)
    listener = Listener()
    engine.submit(make_request(n=3, prompt=6), listener)
    while engine.step():
        pass
    assert [listener.choice(i) for i in range(3)] == [[2, 3, 4], [3, 4, 5], [4, 5, 6]]
    assert listener.ends() == dict.fromkeys(range(3), "length")
    assert idle(engine)


def test_one_choice_is_cancelled_and_the_others_continue() -> None:
    engine, _ = make_engine(slots=3)
    listener = Listener()
    number = engine.submit(make_request(n=3, max_tokens=5), listener)
    engine.step()
    engine.cancel(number, 1)
    engine.cancel(number, 7)
    engine.step()
    assert listener.ends() == {1: "cancelled"}
    engine.cancel(number)
    engine.step()
    assert listener.ends() == dict.fromkeys(range(3), "cancelled")
    engine.cancel(number, 1)
    assert not engine.step()
    assert idle(engine)


def test_more_choices_than_slots_are_refused_by_both_numbers() -> None:
    engine, _ = make_engine(slots=2)
    with pytest.raises(InvalidRequest, match=r"3 choices .* at most 2 ") as caught:
        engine.submit(make_request(n=3), Listener())
    assert caught.value.field == "n"


def test_all_choices_fail_when_their_prompt_does() -> None:
    engine, model = make_engine()
    listener, model.refused = Listener(), 0
    engine.submit(make_request(n=2), listener)
    engine.step()
    assert listener.ends() == {0: "no", 1: "no"}
    assert idle(engine)


class Fussy:
    """A constraint that breaks over a token; all its forks know what each was told."""

    def __init__(self, hates: int, told: list[int]) -> None:
        self.hates, self.told = hates, told

    def allowed(self) -> npt.NDArray[np.int32]:
        raise AssertionError("the model of this test does not ask")

    def advance(self, token_id: int) -> None:
        self.told.append(token_id)
        if token_id == self.hates:
            raise ValueError("not that one")

    def fork(self) -> "Fussy":
        return Fussy(self.hates, self.told)


def test_a_constraint_that_fails_on_a_token_ends_only_its_choice() -> None:
    engine, _ = make_engine(slots=4)
    broken, other = Listener(), Listener()
    engine.submit(make_request(n=2, constraint=Fussy(5, [])), broken)
    engine.submit(make_request(), other)
    while engine.step():
        pass
    assert broken.ends() == {0: "length", 1: "ValueError: not that one"}
    assert broken.choice(1) == [3, 4]
    assert other.tokens == [2, 3, 4]
    assert idle(engine)


def test_a_constraint_receives_every_token_except_the_stop_token() -> None:
    told: list[int] = []
    engine, _ = make_engine()
    engine.submit(
        make_request(max_tokens=9, constraint=Fussy(0, told), stop_token_ids=frozenset({4})), Listener()
    )
    while engine.step():
        pass
    assert told == [2, 3]
