"""What runs in the next step: plan in, plan out.

Slots are given first come, first served. A step decodes one token of every sequence whose prompt is done, and
runs at most one chunk's worth of prompts, so that a long prompt never holds up the others for longer than
that. The prompts share the chunk, so that a short one does not wait for a long one (``prefill_budget``). The
choices of a request get their slots together; the prompt is run in one of them and then copied to the others.

A prompt runs up to its first medium that is not encoded yet. Where media are to be encoded and prompts to be
run, steps do one and the other in turn, so that nobody who decodes waits for both.
"""

from collections import deque
from collections.abc import Collection, Container, Iterable, Mapping
from itertools import count

from gemma_model.engine.plan import Decode, Encode, Fork, Plan, Prefill, Waiting
from gemma_model.engine.prefill_budget import Demand, divide_budget
from gemma_model.engine.sequence import Finish, Key, Name, Sequence
from gemma_model.engine.slots import Slots

Group = list[Sequence]
"""A request until its prompt is done: its choices, of which the first runs the prompt for all."""


class QueueFull(Exception):
    """No more can wait."""


class Scheduler:
    """Sequences from the queue to their end. Between ``plan`` and ``commit`` only ``submit`` may be called.

    Args:
        slots: all free.
        max_waiting: requests that may wait when there are no slots for them.
        chunk: prompt tokens in one step.
    """

    def __init__(self, slots: Slots, max_waiting: int, chunk: int) -> None:
        self._slots, self._max_waiting, self._chunk = slots, max_waiting, chunk
        self._waiting: deque[Group] = deque()
        self._prefilling: list[Group] = []  # in the order of admission
        self._decoding: dict[Name, Sequence] = {}
        self._encoding: Key | None = None  # the medium that is being encoded
        self._encoder_turns = count(1)
        self._encoded_last = False

    @property
    def slots(self) -> int:
        """All slots, free or not."""
        return self._slots.count

    @property
    def waiting(self) -> int:
        """Requests without slots."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Sequences with a slot."""
        return sum(map(len, self._prefilling)) + len(self._decoding)

    @property
    def stored(self) -> int:
        """Tokens of running sequences whose keys and values are in the cache."""
        return sum(sequence.stored_length for sequence in self._running())

    def submit(self, group: Iterable[Sequence]) -> None:
        """Queue a request: one sequence for each choice, at most as many as there are slots.

        Raises:
            QueueFull: when too many wait already.
        """
        self._waiting.append(list(group))
        if self._stuck() > self._max_waiting:
            self._waiting.pop()
            raise QueueFull

    def cancel(self, name: Name) -> Sequence | None:
        """End a sequence wherever it is; ``None`` when it has ended before."""
        return self._end(name, "cancelled")

    def plan(self, encoded: Container[Key] = frozenset()) -> Plan:
        """The next step; empty when there is nothing to do.

        Args:
            encoded: the media whose soft tokens are there.
        """
        while self._waiting and len(self._waiting[0]) <= self._slots.free:
            self._admit(self._waiting.popleft())
        prefills, encode = self._prefills(encoded), self._encode(encoded)
        if prefills and encode:
            self._encoded_last = not self._encoded_last
            prefills, encode = ([], encode) if self._encoded_last else (prefills, None)
        ready = sorted(self._decoding.values(), key=lambda s: s.slot)
        needed = frozenset(self._needed(prefills))
        clears = self._slots.take_to_clear()
        return Plan(tuple(prefills), tuple(map(_decode, ready)), clears, encode, needed)

    def commit(self, plan: Plan, tokens: Mapping[Name, int], failed: Collection[Name] = ()) -> list[Sequence]:
        """Take in what a step gave.

        Args:
            plan: the last one.
            tokens: the new token of each sequence that has one.
            failed: sequences of the plan that could not be run; they leave, and their slots are not trusted.

        Returns:
            The sequences that failed or have a new token; the finished ones among them have left.
        """
        for prefill, group in self._prefilled(plan):
            if not set(prefill.names) <= set(failed):
                self._store(group[0], prefill.stop)
                if prefill.ends_prompt:
                    self._fork(group)
        for decode in plan.decodes:
            self._store(self._decoding[decode.name], decode.position + 1)
        news = [sequence for name in failed if (sequence := self._end(name, "failed"))]
        return news + [self._append(self._decoding[name], token_id) for name, token_id in tokens.items()]

    def abort(self) -> list[Sequence]:
        """Drop all that run and whatever the slots hold, after a step that failed."""
        dropped = list(self._running())
        for sequence in dropped:
            sequence.finish = "failed"
        self._prefilling.clear()
        self._decoding.clear()
        self._encoding = None
        self._slots.forget()
        return dropped

    def _running(self) -> Iterable[Sequence]:
        yield from (sequence for group in self._prefilling for sequence in group)
        yield from self._decoding.values()

    def _stuck(self) -> int:
        """Requests in the queue for which there are no slots."""
        free = self._slots.free
        for place, group in enumerate(self._waiting):
            free -= len(group)
            if free < 0:
                return len(self._waiting) - place
        return 0

    def _admit(self, group: Group) -> None:
        first, *others = group
        reusable = first.keys if first.reuses else ()
        first.slot, first.reused_length = self._slots.acquire(first.name, reusable)
        first.stored_length = first.reused_length
        first.encoder_turn = next(self._encoder_turns)
        for other in others:
            other.slot, _ = self._slots.acquire(other.name, ())
        self._prefilling.append(group)

    def _prefills(self, encoded: Container[Key]) -> list[Prefill]:
        shares = divide_budget([_demand(group[0], encoded) for group in self._prefilling], self._chunk)
        return [
            _prefill(group, share) for group, share in zip(self._prefilling, shares, strict=True) if share
        ]

    def _encode(self, encoded: Container[Key]) -> Encode | None:
        """A medium to its end, then another: the prompts that wait for one take turns."""
        waiting: dict[Key, list[Group]] = {}
        for group in self._prefilling:
            following = next(iter(group[0].inputs_ahead), None)
            if following is not None and following.key not in encoded:
                waiting.setdefault(following.key, []).append(group)
        if not waiting:
            self._encoding = None
            return None
        if self._encoding not in waiting:
            self._encoding = min(waiting, key=lambda key: min(g[0].encoder_turn for g in waiting[key]))
            for group in waiting[self._encoding]:
                group[0].encoder_turn = next(self._encoder_turns)
        return Encode(self._encoding, tuple(map(_waiting, waiting[self._encoding])))

    def _needed(self, prefills: Iterable[Prefill]) -> Iterable[Key]:
        """What the next prompts to run begin with, and what these run."""
        stops = {prefill.name: prefill.stop for prefill in prefills}
        for first, *_ in self._prefilling:
            for place, each in enumerate(first.inputs_ahead):
                if place == 0 or each.start < stops.get(first.name, 0):
                    yield each.key

    def _prefilled(self, plan: Plan) -> list[tuple[Prefill, Group]]:
        groups = {group[0].name: group for group in self._prefilling}
        return [(prefill, groups[prefill.name]) for prefill in plan.prefills]

    def _fork(self, group: Group) -> None:
        """A prompt is done: its choices go their own ways."""
        first, *others = group
        self._prefilling.remove(group)
        for other in others:
            self._slots.fork(first.slot, other.slot)
            other.stored_length, other.reused_length = first.stored_length, first.reused_length
        self._decoding.update((sequence.name, sequence) for sequence in group)

    def _store(self, sequence: Sequence, length: int) -> None:
        self._slots.extend(sequence.slot, sequence.keys[sequence.stored_length : length])
        sequence.stored_length = length

    def _append(self, sequence: Sequence, token_id: int) -> Sequence:
        sequence.append(token_id)
        if sequence.finish:
            self._leave(sequence)
        return sequence

    def _end(self, name: Name, finish: Finish) -> Sequence | None:
        sequence = self._decoding.get(name) or self._withdraw(name)
        if sequence is not None:
            sequence.finish = finish
            self._leave(sequence)
        return sequence

    def _withdraw(self, name: Name) -> Sequence | None:
        """Take a sequence out of its group; the prompt that it was running is the next choice's to run."""
        groups = (*self._waiting, *self._prefilling)
        found = next(((group, s) for group in groups for s in group if s.name == name), None)
        if found is None:
            return None
        group, sequence = found
        if sequence is group[0] and sequence.slot >= 0 and len(group) > 1:
            self._pass_on(sequence, group[1])
        group.remove(sequence)
        if not group:
            (self._waiting if sequence.slot < 0 else self._prefilling).remove(group)
        return sequence

    def _pass_on(self, first: Sequence, heir: Sequence) -> None:
        self._slots.hand_over(first.slot, heir.name)
        self._slots.hand_over(heir.slot, first.name)
        first.slot, heir.slot = heir.slot, first.slot
        heir.stored_length, heir.reused_length = first.stored_length, first.reused_length
        heir.encoder_turn = first.encoder_turn

    def _leave(self, sequence: Sequence) -> None:
        self._decoding.pop(sequence.name, None)
        if sequence.slot >= 0:
            self._slots.release(sequence.slot, trusted=sequence.finish != "failed")


def _demand(first: Sequence, encoded: Container[Key]) -> Demand:
    return Demand(first.runnable_length(encoded) - first.stored_length, first.prompt_cost)


def _waiting(group: Group) -> Waiting:
    return Waiting(tuple(sequence.name for sequence in group), group[0].stored_length)


def _prefill(group: Group, at_most: int) -> Prefill:
    first, *others = group
    start = first.stored_length
    stop = min(first.prompt_length, start + at_most)
    ends = stop == first.prompt_length
    forks = tuple(Fork(other.name, other.slot) for other in others)
    return Prefill(first.name, first.slot, start, stop, ends, first.may_stop, forks)


def _decode(sequence: Sequence) -> Decode:
    token_id = sequence.keys[-1]
    assert isinstance(token_id, int), "a generated token's key is its id"
    return Decode(
        name=sequence.name,
        slot=sequence.slot,
        position=sequence.stored_length,
        generated=sequence.generated_length,
        token_id=token_id,
        may_stop=sequence.may_stop,
    )
