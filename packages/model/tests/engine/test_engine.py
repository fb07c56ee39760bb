"""Submit, cancel, step, with a model of ten lines."""

import pytest

from gemma_model.engine_types import EngineOutput
from gemma_wire import ContextLengthExceeded, Overloaded, Timings, Unavailable

from .counting import Listener, idle, make_engine, make_request

AT_ONCE = Timings(queued=0, prefill=0, decode=0)


def test_every_callback_gets_its_own_tokens_and_one_end() -> None:
    engine, _ = make_engine()
    listeners = [Listener() for _ in range(5)]
    for n, listener in enumerate(listeners):
        engine.submit(make_request(first=100 * n), listener)
    while engine.step():
        pass
    assert [x.tokens for x in listeners] == [[100 * n + i for i in (1, 2, 3)] for n in range(5)]
    assert all([step.finish for step in x.steps] == [None, None, "length"] for x in listeners)


def test_a_stop_token_is_among_the_tokens() -> None:
    engine, _ = make_engine()
    listener = Listener()
    engine.submit(make_request(max_tokens=50, stop_token_ids=frozenset({4})), listener)
    while engine.step():
        pass
    assert listener.tokens == [2, 3, 4]
    assert listener.steps[-1].finish == "stop"


@pytest.mark.parametrize("steps", range(5))
def test_cancelled_in_any_state_it_ends_at_the_next_step(steps: int) -> None:
    engine, _ = make_engine(slots=1)
    listener, other = Listener(), Listener()
    number = engine.submit(make_request(max_tokens=50, prompt=10), listener)
    engine.submit(make_request(first=7), other)
    for _ in range(steps):
        engine.step()
    engine.cancel(number)
    engine.cancel(number)
    engine.step()
    assert listener.steps[-1] == EngineOutput(finish="cancelled", timings=AT_ONCE)
    while engine.step():
        pass
    assert other.tokens == [8, 9, 10]
    assert idle(engine)


def test_cancelled_while_it_waits() -> None:
    engine, _ = make_engine(slots=1)
    engine.submit(make_request(max_tokens=50), Listener())
    listener = Listener()
    engine.cancel(engine.submit(make_request(), listener))
    engine.step()
    assert listener.steps == [EngineOutput(finish="cancelled", timings=AT_ONCE)]
    assert engine.info().waiting == 0


def test_cancelling_the_unknown_and_the_ended_does_nothing() -> None:
    engine, _ = make_engine()
    number = engine.submit(make_request(max_tokens=1), Listener())
    engine.step()
    engine.cancel(number)
    engine.cancel(12345)
    assert engine.step(), "the prefix cache saves what is left"
    assert not engine.step()


def test_a_listener_may_cancel() -> None:
    engine, _ = make_engine()
    heard: list[EngineOutput] = []

    def listen(step: EngineOutput) -> None:
        heard.append(step)
        engine.cancel(number)

    number = engine.submit(make_request(max_tokens=50), listen)
    while engine.step():
        pass
    assert [step.finish for step in heard] == [None, "cancelled"]


def test_a_failing_callback_does_not_affect_others() -> None:
    engine, _ = make_engine()

    def fail(step: EngineOutput) -> None:
        raise ValueError(step)

    engine.submit(make_request(), fail)
    listener = Listener()
    engine.submit(make_request(), listener)
    while engine.step():
        pass
    assert listener.tokens == [2, 3, 4]


def test_a_full_queue_is_overloaded() -> None:
    engine, _ = make_engine(slots=1, max_queue=1)
    for _ in range(2):
        engine.submit(make_request(), Listener())
    with pytest.raises(Overloaded):
        engine.submit(make_request(), Listener())
    while engine.step():
        pass
    engine.submit(make_request(), Listener())


@pytest.mark.parametrize(("prompt", "max_tokens"), [(0, 1), (98, 3), (1, 100)])
def test_requests_that_cannot_fit_are_refused(prompt: int, max_tokens: int) -> None:
    engine, _ = make_engine()
    with pytest.raises(ContextLengthExceeded):
        engine.submit(make_request(prompt=prompt, max_tokens=max_tokens), Listener())


def test_a_failed_step_ends_only_running_requests() -> None:
    engine, model = make_engine(slots=1)
    first, second = Listener(), Listener()
    engine.submit(make_request(), first)
    engine.submit(make_request(first=5), second)
    engine.step()
    model.broken = True
    engine.step()
    model.broken = False
    while engine.step():
        pass
    assert first.steps[-1].error == "RuntimeError: out of memory"
    assert second.tokens == [6, 7, 8]


def test_a_request_with_bad_input_fails_alone() -> None:
    engine, model = make_engine()
    listeners = [Listener() for _ in range(3)]
    model.refused = 1
    for listener in listeners:
        engine.submit(make_request(), listener)
    while engine.step():
        pass
    assert [x.tokens for x in listeners] == [[2, 3, 4], [], [2, 3, 4]]
    assert listeners[1].steps == [EngineOutput(error="no", timings=AT_ONCE)]
    assert idle(engine)


def test_drained_everything_is_cancelled_and_nothing_more_is_taken() -> None:
    engine, _ = make_engine(slots=1)
    listeners = [Listener() for _ in range(3)]
    for listener in listeners:
        engine.submit(make_request(max_tokens=50), listener)
    engine.step()
    engine.cancel_all()
    assert [listener.steps[-1].finish for listener in listeners] == ["cancelled"] * 3
    with pytest.raises(Unavailable):
        engine.submit(make_request(), Listener())
    assert not engine.wait()
