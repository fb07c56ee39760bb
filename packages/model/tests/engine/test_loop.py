"""Submit, cancel, step, with a model of ten lines."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from gemma_model.engine.choice import Choice
from gemma_model.engine.loop import Loop
from gemma_model.engine.outcome import Outcome
from gemma_model.engine.scheduler import Plan, Scheduler
from gemma_model.engine.sequence import Name
from gemma_model.engine.slots import Slots
from gemma_model.protocol import Generation, Observation, Prompt, Sampling, Step, Times
from gemma_wire import ContextLengthExceeded, InvalidRequest, Overloaded, Unavailable


class Counter:
    """A model whose next token is one more than the last, and as much further as there are choices before."""

    def __init__(self) -> None:
        self.broken = False
        self.refused = -1

    def run(self, plan: Plan, choices: Mapping[Name, Choice]) -> Outcome:
        if self.broken:
            raise RuntimeError("out of memory")
        failed = {name: "no" for p in plan.prefills for name in p.names if name[0] == self.refused}
        ending = [name for p in plan.prefills if p.ends_prompt for name in p.names if name not in failed]
        tokens = {name: choices[name].generation.prompt.token_ids[-1] + 1 + name[1] for name in ending}
        return Outcome(tokens | {d.name: d.token_id + 1 for d in plan.decodes}, failed)


class Listener:
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(self, step: Step) -> None:
        assert not any(before.last and before.choice == step.choice for before in self.steps)
        self.steps.append(step)

    @property
    def tokens(self) -> list[int]:
        return self.choice(0)

    def choice(self, index: int) -> list[int]:
        return [token for step in self.steps if step.choice == index for token in step.token_ids]

    def ends(self) -> dict[int, str | None]:
        return {step.choice: step.finish or step.error for step in self.steps if step.last}


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


AT_ONCE = Times(0, 0, 0)


def loop(slots: int = 2, max_queue: int = 4, clock: Clock | None = None) -> tuple[Loop, Counter]:
    model, slots_ = Counter(), Slots(slots, 100, 100)
    return Loop(model, Scheduler(slots_, max_queue, chunk=4), length=100, clock=clock or Clock()), model


def idle(engine: Loop) -> bool:
    load = engine.load()
    return (load.running, load.waiting, load.slots_used, load.cache_tokens_used) == (0, 0, 0, 0)


def generation(first: int = 1, max_tokens: int = 3, prompt: int = 1, **rest: object) -> Generation:
    ids = tuple(range(first - prompt + 1, first + 1))
    return Generation(Prompt(ids), Sampling(), max_tokens, **rest)  # type: ignore[arg-type]


def test_every_listener_gets_its_own_tokens_and_one_end() -> None:
    engine, _ = loop()
    listeners = [Listener() for _ in range(5)]
    for n, listener in enumerate(listeners):
        engine.submit(generation(first=100 * n), listener)
    while engine.step():
        pass
    assert [x.tokens for x in listeners] == [[100 * n + i for i in (1, 2, 3)] for n in range(5)]
    assert all([step.finish for step in x.steps] == [None, None, "length"] for x in listeners)


def test_a_stop_token_is_among_the_tokens() -> None:
    engine, _ = loop()
    listener = Listener()
    engine.submit(generation(max_tokens=50, stop_token_ids=frozenset({4})), listener)
    while engine.step():
        pass
    assert listener.tokens == [2, 3, 4]
    assert listener.steps[-1].finish == "stop"


@pytest.mark.parametrize("steps", range(5))
def test_cancelled_in_any_state_it_ends_at_the_next_step(steps: int) -> None:
    engine, _ = loop(slots=1)
    listener, other = Listener(), Listener()
    number = engine.submit(generation(max_tokens=50, prompt=10), listener)
    engine.submit(generation(first=7), other)
    for _ in range(steps):
        engine.step()
    engine.cancel(number)
    engine.cancel(number)
    engine.step()
    assert listener.steps[-1] == Step(finish="cancelled", times=AT_ONCE)
    while engine.step():
        pass
    assert other.tokens == [8, 9, 10]
    assert idle(engine)


def test_cancelled_while_it_waits() -> None:
    engine, _ = loop(slots=1)
    engine.submit(generation(max_tokens=50), Listener())
    listener = Listener()
    engine.cancel(engine.submit(generation(), listener))
    engine.step()
    assert listener.steps == [Step(finish="cancelled", times=AT_ONCE)]
    assert engine.load().waiting == 0


def test_cancelling_the_unknown_and_the_ended_does_nothing() -> None:
    engine, _ = loop()
    number = engine.submit(generation(max_tokens=1), Listener())
    engine.step()
    engine.cancel(number)
    engine.cancel(12345)
    assert not engine.step()


def test_a_listener_may_cancel() -> None:
    engine, _ = loop()
    heard: list[Step] = []

    def listen(step: Step) -> None:
        heard.append(step)
        engine.cancel(number)

    number = engine.submit(generation(max_tokens=50), listen)
    while engine.step():
        pass
    assert [step.finish for step in heard] == [None, "cancelled"]


def test_a_listener_that_fails_harms_nobody_else() -> None:
    engine, _ = loop()

    def fail(step: Step) -> None:
        raise ValueError(step)

    engine.submit(generation(), fail)
    listener = Listener()
    engine.submit(generation(), listener)
    while engine.step():
        pass
    assert listener.tokens == [2, 3, 4]


def test_a_full_queue_is_overloaded() -> None:
    engine, _ = loop(slots=1, max_queue=1)
    for _ in range(2):
        engine.submit(generation(), Listener())
    with pytest.raises(Overloaded):
        engine.submit(generation(), Listener())
    while engine.step():
        pass
    engine.submit(generation(), Listener())


@pytest.mark.parametrize(("prompt", "max_tokens"), [(0, 1), (98, 3), (1, 100)])
def test_what_cannot_fit_is_refused(prompt: int, max_tokens: int) -> None:
    engine, _ = loop()
    with pytest.raises(ContextLengthExceeded):
        engine.submit(generation(prompt=prompt, max_tokens=max_tokens), Listener())


def test_a_failed_step_ends_what_ran_and_nothing_else() -> None:
    engine, model = loop(slots=1)
    first, second = Listener(), Listener()
    engine.submit(generation(), first)
    engine.submit(generation(first=5), second)
    engine.step()
    model.broken = True
    engine.step()
    model.broken = False
    while engine.step():
        pass
    assert first.steps[-1].error == "RuntimeError: out of memory"
    assert second.tokens == [6, 7, 8]


def test_a_request_whose_input_is_bad_fails_alone() -> None:
    engine, model = loop()
    listeners = [Listener() for _ in range(3)]
    model.refused = 1
    for listener in listeners:
        engine.submit(generation(), listener)
    while engine.step():
        pass
    assert [x.tokens for x in listeners] == [[2, 3, 4], [], [2, 3, 4]]
    assert listeners[1].steps == [Step(error="no", times=AT_ONCE)]
    assert idle(engine)


def test_drained_everything_is_cancelled_and_nothing_more_is_taken() -> None:
    engine, _ = loop(slots=1)
    listeners = [Listener() for _ in range(3)]
    for listener in listeners:
        engine.submit(generation(max_tokens=50), listener)
    engine.step()
    engine.drain()
    assert [listener.steps[-1].finish for listener in listeners] == ["cancelled"] * 3
    with pytest.raises(Unavailable):
        engine.submit(generation(), Listener())
    assert not engine.wait()


def test_every_choice_gets_its_own_tokens_and_one_end() -> None:
    engine, _ = loop(slots=3)
    listener = Listener()
    engine.submit(generation(n=3, prompt=6), listener)
    while engine.step():
        pass
    assert [listener.choice(i) for i in range(3)] == [[2, 3, 4], [3, 4, 5], [4, 5, 6]]
    assert listener.ends() == dict.fromkeys(range(3), "length")
    assert idle(engine)


def test_one_choice_is_cancelled_and_the_others_go_on() -> None:
    engine, _ = loop(slots=3)
    listener = Listener()
    number = engine.submit(generation(n=3, max_tokens=5), listener)
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
    engine, _ = loop(slots=2)
    with pytest.raises(InvalidRequest, match=r"3 choices .* at most 2 ") as caught:
        engine.submit(generation(n=3), Listener())
    assert caught.value.field == "n"


def test_all_choices_fail_when_their_prompt_does() -> None:
    engine, model = loop()
    listener, model.refused = Listener(), 0
    engine.submit(generation(n=2), listener)
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


def test_a_constraint_that_breaks_over_a_token_ends_its_choice_alone() -> None:
    engine, _ = loop(slots=4)
    broken, other = Listener(), Listener()
    engine.submit(generation(n=2, constraint=Fussy(5, [])), broken)
    engine.submit(generation(), other)
    while engine.step():
        pass
    assert broken.ends() == {0: "length", 1: "ValueError: not that one"}
    assert broken.choice(1) == [3, 4]
    assert other.tokens == [2, 3, 4]
    assert idle(engine)


def test_a_constraint_hears_of_every_token_but_the_stop_token() -> None:
    told: list[int] = []
    engine, _ = loop()
    engine.submit(
        generation(max_tokens=9, constraint=Fussy(0, told), stop_token_ids=frozenset({4})), Listener()
    )
    while engine.step():
        pass
    assert told == [2, 3]


def test_where_the_time_went() -> None:
    clock = Clock()
    engine, _ = loop(slots=1, clock=clock)
    first, second = Listener(), Listener()
    engine.submit(generation(prompt=6, max_tokens=2), first)
    engine.submit(generation(prompt=1, max_tokens=1), second)
    for seconds in (1.0, 2.0, 4.0, 8.0):  # two chunks, another token; then the second request
        clock.now += seconds
        engine.step()
    assert first.steps[-1].times == Times(queued=1, prefill=2, decode=4)
    assert second.steps[-1].times == Times(queued=15, prefill=0, decode=0)
    assert engine.observations() == [
        Observation("queue", 1),
        Observation("prefill", 2),
        Observation("first_token", 3),
        Observation("inter_token", 4),
        Observation("decode", 4),
        Observation("queue", 15),
        Observation("prefill", 0),
        Observation("first_token", 15),
        Observation("decode", 0),
    ]
    assert engine.observations() == []


def test_what_was_done_is_counted() -> None:
    engine, model = loop(slots=2)
    for _ in range(2):
        engine.submit(generation(prompt=6, n=2), Listener())
        while engine.step():
            pass
    model.refused = 2
    engine.submit(generation(), Listener())
    engine.submit(generation(prompt=6, max_tokens=9, prompt_logprobs=True), Listener())
    engine.step()
    assert (engine.load().running, engine.load().slots_used, engine.load().cache_tokens_used) == (1, 1, 3)
    engine.cancel(3)
    engine.step()
    totals = engine.load().totals
    assert (totals.prompt_tokens, totals.generated_tokens) == (12, 12)
    assert (totals.prefix_queries, totals.prefix_hits) == (6 + 6 + 1, 5)
    assert totals.finished == {"length": 4, "failed": 1, "cancelled": 1}
    assert idle(engine)
