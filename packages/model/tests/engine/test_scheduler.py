import pytest

from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import QueueFull, Scheduler
from gemma_model.engine.sequence import EncoderInput, Sequence
from gemma_model.engine.step_plan import Decode, Fork, Prefill, StepPlan, TokenRow

STOP = 0


def scheduler(slots: int = 2, max_waiting: int = 8, chunk: int = 4) -> Scheduler:
    return Scheduler(KVSlots(slots), PrefixCache(0, ring=1000), max_waiting, chunk)


def request(
    number: int, prompt: int = 3, max_tokens: int = 5, min_tokens: int = 0, n: int = 1
) -> list[Sequence]:
    token_keys = [100 * number + i for i in range(prompt)]  # nothing in common with any other
    return [
        Sequence((number, choice), list(token_keys), max_tokens, min_tokens, frozenset({STOP}))
        for choice in range(n)
    ]


def step(scheduler: Scheduler, token: int = 9) -> tuple[StepPlan, list[Sequence]]:
    plan = scheduler.plan()
    return plan, scheduler.commit(plan, {row.seq_id: [token] for row in plan.rows})


def prefilled(plan: StepPlan) -> list[int]:
    return [prefill.seq_id[0] for prefill in plan.prefills]


def test_a_request_from_its_prompt_to_its_last_token() -> None:
    s, group = scheduler(), request(1, prompt=6, max_tokens=2)
    s.submit(group)
    assert step(s) == (StepPlan((Prefill((1, 0), 0, 0, 4, False, True),)), [])
    assert step(s) == (StepPlan((Prefill((1, 0), 0, 4, 6, True, True),)), group)
    assert step(s)[0] == StepPlan((), (Decode((1, 0), 0, 6, 1, 9, True),))
    assert group[0].finish == "length"
    assert not s.plan()
    assert (s.running, s.waiting, s.stored) == (0, 0, 0)


def test_a_stop_token_ends_it() -> None:
    s, (sequence,) = scheduler(), request(1)
    s.submit([sequence])
    step(s, STOP)
    assert (sequence.finish, sequence.generated_length, s.running) == ("stop", 1, 0)


def test_before_min_tokens_it_may_not_stop() -> None:
    s = scheduler()
    s.submit(request(1, min_tokens=2))
    rows = [step(s)[0].rows for _ in range(3)]
    assert rows == [[TokenRow((1, 0), 0, False)], [TokenRow((1, 0), 1, False)], [TokenRow((1, 0), 2, True)]]


def test_decoding_goes_on_while_a_long_prompt_is_run() -> None:
    s = scheduler()
    s.submit(request(1, max_tokens=50))
    step(s)
    s.submit(request(2, prompt=40))
    for _ in range(10):
        plan, _ = step(s)
        assert [d.seq_id for d in plan.decodes] == [(1, 0)]
        assert sum(p.stop - p.start for p in plan.prefills) == 4


def test_short_prompts_share_a_chunk() -> None:
    s = scheduler(slots=3, chunk=7)
    for number in (1, 2, 3):
        s.submit(request(number))
    plan, _ = step(s)
    assert [(p.seq_id[0], p.start, p.stop) for p in plan.prefills] == [(1, 0, 3), (2, 0, 3), (3, 0, 1)]


def test_first_come_first_served() -> None:
    s = scheduler(slots=1)
    for number in (1, 2, 3):
        s.submit(request(number, max_tokens=1))
    assert [prefilled(step(s)[0]) for _ in range(3)] == [[1], [2], [3]]


def test_the_queue_is_bounded_and_free_slots_do_not_count() -> None:
    s = scheduler(slots=2, max_waiting=1)
    for number in (1, 2, 3):
        s.submit(request(number))
    with pytest.raises(QueueFull):
        s.submit(request(4))
    step(s)
    with pytest.raises(QueueFull):
        s.submit(request(4))
    s.cancel((1, 0))
    s.submit(request(4))


def test_no_queue_at_all_still_serves() -> None:
    s = scheduler(slots=1, max_waiting=0)
    s.submit(request(1))
    with pytest.raises(QueueFull):
        s.submit(request(2))


@pytest.mark.parametrize("steps", range(4))
def test_cancelled_in_any_state_every_slot_is_free(steps: int) -> None:
    s, (sequence,) = scheduler(slots=1, chunk=2), request(1)
    s.submit([sequence])
    for _ in range(steps):
        step(s)
    assert s.cancel((1, 0)) is sequence
    assert (sequence.finish, s.running, s.waiting) == ("cancelled", 0, 0)
    assert s.cancel((1, 0)) is None
    s.submit(request(2))
    assert prefilled(step(s)[0]) == [2]


def test_after_a_failed_step_nothing_is_trusted() -> None:
    s = scheduler(slots=1)
    s.submit(request(1))
    step(s)
    s.submit(request(2))
    assert [x.seq_id for x in s.abort()] == [(1, 0)]
    s.cancel((2, 0))
    s.submit([Sequence((3, 0), [100, 101, 102], 5)])
    assert step(s)[0].prefills[0].start == 0


def test_choices_share_one_prompt_and_then_go_their_own_ways() -> None:
    s, group = scheduler(slots=3), request(1, prompt=6, n=3)
    s.submit(group)
    forks = (Fork((1, 1), 1), Fork((1, 2), 2))
    assert step(s)[0] == StepPlan((Prefill((1, 0), 0, 0, 4, False, True, forks),))
    plan, news = step(s)
    assert plan == StepPlan((Prefill((1, 0), 0, 4, 6, True, True, forks),))
    assert news == group
    plan, _ = step(s)
    assert plan.decodes == tuple(Decode((1, i), i, 6, 1, 9, True) for i in range(3))


def test_choices_wait_for_slots_for_all_and_no_request_overtakes() -> None:
    s = scheduler(slots=3)
    s.submit(request(1, max_tokens=3))
    s.submit(request(2, n=3, max_tokens=1))
    s.submit(request(3))
    plans = [prefilled(step(s)[0]) for _ in range(5)]
    assert plans == [[1], [], [], [2], [3]]


@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("leaver", range(3))
def test_a_choice_that_ends_early_does_not_affect_the_others(leaver: int, waiting: bool) -> None:
    """The choice that runs the prompt hands over to the next."""
    s, group = scheduler(slots=3, chunk=2), request(1, n=3)
    s.submit(group)
    if not waiting:
        step(s)
    assert s.cancel((1, leaver)) is group[leaver]
    stayed = [sequence for sequence in group if sequence is not group[leaver]]
    started = 0 if waiting else 2
    plan, _ = step(s)
    assert (plan.prefills[0].start, plan.prefills[0].seq_ids) == (started, tuple(x.seq_id for x in stayed))
    while not plan.rows:
        plan, _ = step(s)
    assert [row.seq_id for row in plan.rows] == [x.seq_id for x in stayed]
    assert len({sequence.slot for sequence in stayed}) == s.running == 2


def test_when_its_prompt_cannot_be_run_all_choices_fail_and_their_slots_are_not_trusted() -> None:
    s, group = scheduler(slots=3, chunk=2), request(1, n=3)
    s.submit(group)
    step(s)
    plan = s.plan()
    assert s.commit(plan, {}, plan.seq_ids) == group
    assert {x.finish for x in group} == {"failed"}
    assert (s.running, s.stored) == (0, 0)
    s.submit(request(1))
    assert step(s)[0].prefills[0].start == 0


def test_a_choice_that_fails_on_a_token_does_not_affect_the_others() -> None:
    s, group = scheduler(slots=2), request(1, n=2, max_tokens=2)
    s.submit(group)
    plan = s.plan()
    assert s.commit(plan, {(1, 1): [9]}, [(1, 0)]) == group
    plan, _ = step(s)
    assert [d.seq_id for d in plan.decodes] == [(1, 1)]
    assert [x.finish for x in group] == ["failed", "length"]


def with_media(number: int, *media: str) -> list[Sequence]:
    """A prompt of one token and then media with two soft tokens each."""
    token_keys = [(number, 0), *((medium, place) for medium in media for place in range(2))]
    inputs = tuple(EncoderInput(medium, 1 + 2 * i, 3 + 2 * i) for i, medium in enumerate(media))
    return [Sequence((number, 0), list(token_keys), 1, encoder_inputs=inputs)]


def test_a_request_with_one_image_does_not_wait_for_one_with_many() -> None:
    s, encoded, order = scheduler(slots=3, chunk=100), set[object](), list[object]()
    s.submit(with_media(0, *"abcdef"))
    s.submit(with_media(1, "x"))
    s.submit(with_media(2, "y", "z"))
    while plan := s.plan(encoded):
        s.commit(plan, {row.seq_id: [9] for row in plan.rows})
        if plan.encode:
            encoded.add(plan.encode.key)
            order.append(plan.encode.key)
    assert order == list("axybzcdef")


def test_a_medium_is_encoded_completely_for_all_requests_that_wait_for_it() -> None:
    s, other = scheduler(slots=3, chunk=100), with_media(1, "a")
    s.submit(with_media(0, "a"))
    s.submit(other)
    s.submit(with_media(2, "b"))
    seq_ids = []
    for _ in range(6):
        plan = s.plan()
        s.commit(plan, {})
        seq_ids += [plan.encode.seq_ids] if plan.encode else []
    assert seq_ids == [((0, 0), (1, 0))] * len(seq_ids)
    s.cancel((0, 0))
    assert s.plan().needed == {"a", "b"}
    s.cancel((1, 0))
    plan = s.plan()
    assert plan.encode
    assert plan.encode.key == "b"
    assert plan.needed == {"b"}


def test_requests_without_prefix_cache_reuse_nothing() -> None:
    s = Scheduler(KVSlots(1), PrefixCache(100, ring=1000, block_tokens=1), 8, chunk=4)
    s.submit(request(1, max_tokens=1))
    step(s)
    s.submit([Sequence((2, 0), [100, 101, 102, 103], 1, use_prefix_cache=False)])
    assert step(s)[0].prefills[0].start == 0
    s.submit([Sequence((3, 0), [100, 101, 102, 103], 1)])
    assert step(s)[0].prefills[0].start == 3
