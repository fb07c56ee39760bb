"""Any order of submit, cancel and step: what plans write into the cache is what they later read from it."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from gemma_model.engine.scheduler import Plan, QueueFull, Scheduler
from gemma_model.engine.sequence import Key, Sequence
from gemma_model.engine.slots import Slots

SLOTS, WAITING, CHUNK, WINDOW, STOP = 3, 2, 5, 4, 0


class PretendCache:
    """One full and one sliding layer that hold keys in the plain sense: what token stands at a position."""

    def __init__(self, ring: int) -> None:
        self._ring = ring
        self._full: dict[tuple[int, int], Key] = {}
        self._sliding: dict[tuple[int, int], tuple[int, Key]] = {}

    def run(self, slot: int, keys: list[Key], start: int, stop: int) -> None:
        """A chunk sees the cache as it was, and itself; then it is written."""
        for position in range(start):
            assert self._full[slot, position] == keys[position]
        for position in range(max(0, start - WINDOW + 1), start):
            assert self._sliding[slot, position % self._ring] == (position, keys[position])
        for position in range(start, stop):
            self._full[slot, position] = keys[position]
            self._sliding[slot, position % self._ring] = position, keys[position]


class Machine(RuleBasedStateMachine):
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.count, self.known, self.ended = 0, dict[int, Sequence](), set[int]()
        self.order: list[int] = []  # as submitted
        self.admitted: list[int] = []
        self.build(ring=WINDOW)

    def build(self, ring: int) -> None:
        self.slots = Slots(SLOTS, WINDOW, ring)
        self.scheduler = Scheduler(self.slots, WAITING, CHUNK)
        self.cache = PretendCache(ring)

    @rule(
        target=requests,
        # Few different tokens and one common beginning: prefixes meet often.
        common=st.integers(0, 12),
        own=st.lists(st.integers(1, 2), min_size=1, max_size=10),
        max_tokens=st.integers(1, 6),
        min_tokens=st.integers(0, 6),
    )
    def submit(self, common: int, own: list[int], max_tokens: int, min_tokens: int) -> object:
        keys: list[Key] = [*([1, 2, 2] * 4)[:common], *own]
        sequence = Sequence(self.count, keys, max_tokens, min_tokens, frozenset({STOP}))
        free = self.slots.free
        self.count += 1
        try:
            self.scheduler.submit(sequence)
        except QueueFull:
            assert self.scheduler.waiting == WAITING + free
            return multiple()
        self.known[sequence.number] = sequence
        self.order.append(sequence.number)
        return sequence.number

    @rule(number=requests)
    def cancel(self, number: int) -> None:
        ended = self.scheduler.cancel(number)
        assert (ended is None) == (number in self.ended)
        if ended is not None:
            assert ended.finish == "cancelled"
            self.ended.add(number)

    @rule(number=requests)
    def next_turn(self, number: int) -> None:
        """Somebody continues what a finished request has said."""
        before = self.known[number]
        if before.finish and len(before.keys) < 60:
            keys = [*before.keys, 1, 2]
            sequence = Sequence(self.count, keys, 3, 0, frozenset({STOP}))
            self.count += 1
            try:
                self.scheduler.submit(sequence)
            except QueueFull:
                return
            self.known[sequence.number] = sequence
            self.order.append(sequence.number)

    @rule(token=st.integers(0, 2), unlucky=st.integers(0, 5))
    def step(self, token: int, unlucky: int) -> None:
        """A step; which of its prefills fails, if there are so many."""
        plan = self.scheduler.plan()
        self._check(plan)
        tokens, failed = {}, [p.number for p in plan.prefills[unlucky : unlucky + 1]]
        for number, slot, start, stop, gives, may_stop in _items(plan):
            assert self.slots.owner(slot) == number
            if number in failed:
                continue
            self.cache.run(slot, self.known[number].keys, start, stop)
            if gives:
                tokens[number] = token if may_stop else max(1, token)
        self.ended.update(failed)
        for sequence in self.scheduler.commit(plan, tokens, failed):
            assert 1 <= sequence.generated_length <= sequence.max_tokens
            if sequence.finish:
                assert sequence.number not in self.ended
                self.ended.add(sequence.number)

    @rule()
    def fail(self) -> None:
        self.scheduler.plan()
        self.ended.update(sequence.number for sequence in self.scheduler.abort())
        assert self.slots.free == SLOTS

    def _check(self, plan: Plan) -> None:
        numbers = [item[0] for item in _items(plan)]
        assert len(numbers) == len(set(numbers))
        assert sum(p.stop - p.start for p in plan.prefills) <= CHUNK
        assert all(p.start < p.stop for p in plan.prefills)
        assert bool(plan) == (len(self.ended) < len(self.order)), "there is work, so some of it is done"
        decoding = {d.number for d in plan.decodes}
        for number in self.known:
            sequence = self.known[number]
            if number not in self.ended and sequence.slot >= 0 and not sequence.prefilling:
                assert number in decoding, "nobody who can decode is left out"

    @invariant()
    def every_slot_has_one_owner_or_none(self) -> None:
        assert SLOTS - self.slots.free == self.scheduler.running
        assert self.scheduler.running + self.scheduler.waiting == len(self.order) - len(self.ended)

    @invariant()
    def who_came_first_is_served_first(self) -> None:
        waits = [n for n in self.order if n not in self.ended and self.known[n].slot < 0]
        serves = [n for n in self.order if n not in self.ended and self.known[n].slot >= 0]
        assert not waits or not serves or max(serves) < min(waits)

    def teardown(self) -> None:
        for _ in range(1000):
            if len(self.ended) == len(self.order):
                break
            self.step(1, 9)
        assert len(self.ended) == len(self.order)
        assert (self.slots.free, self.scheduler.waiting) == (SLOTS, 0)
        assert all(self.known[number].finish for number in self.ended if number not in self._failed())

    def _failed(self) -> set[int]:
        return {number for number in self.ended if self.known[number].finish is None}


class WithRewind(Machine):
    def build(self, ring: int) -> None:
        super().build(ring=ring + 3)


def _items(plan: Plan) -> list[tuple[int, int, int, int, bool, bool]]:
    prefills = [(p.number, p.slot, p.start, p.stop, p.ends_prompt, p.may_stop) for p in plan.prefills]
    return prefills + [(d.number, d.slot, d.position, d.position + 1, True, d.may_stop) for d in plan.decodes]


SETTINGS = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestMachine = Machine.TestCase
TestMachine.settings = SETTINGS
TestWithRewind = WithRewind.TestCase
TestWithRewind.settings = SETTINGS
