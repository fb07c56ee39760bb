import pytest

from gemma_model.engine.scheduler import Decode, Plan, Prefill, QueueFull, Scheduler
from gemma_model.engine.sequence import Sequence
from gemma_model.engine.slots import Slots

STOP = 0


def scheduler(slots: int = 2, max_waiting: int = 8, chunk: int = 4) -> Scheduler:
    return Scheduler(Slots(slots, 1000, 1000), max_waiting, chunk)


def sequence(number: int, prompt: int = 3, max_tokens: int = 5, min_tokens: int = 0) -> Sequence:
    keys = [100 * number + i for i in range(prompt)]  # nothing in common with any other
    return Sequence(number, list(keys), max_tokens, min_tokens, frozenset({STOP}))


def step(scheduler: Scheduler, token: int = 9) -> tuple[Plan, list[Sequence]]:
    plan = scheduler.plan()
    numbers = [p.number for p in plan.prefills if p.ends_prompt] + [d.number for d in plan.decodes]
    return plan, scheduler.commit(plan, dict.fromkeys(numbers, token))


def test_a_request_from_its_prompt_to_its_last_token() -> None:
    s, request = scheduler(), sequence(1, prompt=6, max_tokens=2)
    s.submit(request)
    assert step(s) == (Plan((Prefill(1, 0, 0, 4, False, True),)), [])
    assert step(s) == (Plan((Prefill(1, 0, 4, 6, True, True),)), [request])
    assert step(s)[0] == Plan((), (Decode(1, 0, 6, 1, 9, True),))
    assert request.finish == "length"
    assert not s.plan()
    assert (s.running, s.waiting) == (0, 0)


def test_a_stop_token_ends_it() -> None:
    s, request = scheduler(), sequence(1)
    s.submit(request)
    step(s, STOP)
    assert (request.finish, request.generated_length, s.running) == ("stop", 1, 0)


def test_before_min_tokens_it_may_not_stop() -> None:
    s = scheduler()
    s.submit(sequence(1, min_tokens=2))
    plans = [step(s)[0] for _ in range(3)]
    allowed = [plans[0].prefills[0].may_stop, plans[1].decodes[0].may_stop, plans[2].decodes[0].may_stop]
    assert allowed == [False, False, True]


def test_decoding_goes_on_while_a_long_prompt_is_run() -> None:
    s = scheduler()
    s.submit(sequence(1, max_tokens=50))
    step(s)
    s.submit(sequence(2, prompt=40))
    for _ in range(10):
        plan, _ = step(s)
        assert [d.number for d in plan.decodes] == [1]
        assert sum(p.stop - p.start for p in plan.prefills) == 4


def test_short_prompts_share_a_chunk() -> None:
    s = scheduler(slots=3, chunk=7)
    for number in (1, 2, 3):
        s.submit(sequence(number))
    plan, _ = step(s)
    assert [(p.number, p.start, p.stop) for p in plan.prefills] == [(1, 0, 3), (2, 0, 3), (3, 0, 1)]


def test_first_come_first_served() -> None:
    s = scheduler(slots=1)
    for number in (1, 2, 3):
        s.submit(sequence(number, max_tokens=1))
    assert [step(s)[0].prefills[0].number for _ in range(3)] == [1, 2, 3]


def test_the_queue_is_bounded_and_free_slots_do_not_count() -> None:
    s = scheduler(slots=2, max_waiting=1)
    for number in (1, 2, 3):
        s.submit(sequence(number))
    with pytest.raises(QueueFull):
        s.submit(sequence(4))
    step(s)
    with pytest.raises(QueueFull):
        s.submit(sequence(4))
    s.cancel(1)
    s.submit(sequence(4))


def test_no_queue_at_all_still_serves() -> None:
    s = scheduler(slots=1, max_waiting=0)
    s.submit(sequence(1))
    with pytest.raises(QueueFull):
        s.submit(sequence(2))


@pytest.mark.parametrize("steps", range(4))
def test_cancelled_in_any_state_every_slot_is_free(steps: int) -> None:
    s, request = scheduler(slots=1, chunk=2), sequence(1)
    s.submit(request)
    for _ in range(steps):
        step(s)
    assert s.cancel(1) is request
    assert (request.finish, s.running, s.waiting) == ("cancelled", 0, 0)
    assert s.cancel(1) is None
    s.submit(sequence(2))
    assert step(s)[0].prefills[0].number == 2


def test_after_a_failed_step_nothing_is_trusted() -> None:
    s = scheduler(slots=1)
    s.submit(sequence(1))
    step(s)
    s.submit(sequence(2))
    assert [x.number for x in s.abort()] == [1]
    again = sequence(1)
    again.number = 3
    s.submit(again)
    s.cancel(2)
    assert step(s)[0].prefills[0].start == 0
