"""What runs in the next step: plan in, plan out.

First come, first served. A step decodes one token of every sequence whose prompt is done, and runs at most
one chunk's worth of prompts, so that a long prompt never holds up the others for longer than that.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from gemma_model.engine.sequence import Sequence
from gemma_model.engine.slots import Slots


class QueueFull(Exception):
    """No more can wait."""


@dataclass(frozen=True)
class Prefill:
    """Run tokens ``start`` up to ``stop`` of a prompt; the one that ends it gives the first new token."""

    number: int
    slot: int
    start: int
    stop: int
    ends_prompt: bool
    may_stop: bool


@dataclass(frozen=True)
class Decode:
    """Run the last token, which belongs at ``position``; ``generated`` of them came before the next."""

    number: int
    slot: int
    position: int
    generated: int
    token_id: int
    may_stop: bool


@dataclass(frozen=True)
class Plan:
    """One step: each sequence is in it at most once."""

    prefills: tuple[Prefill, ...] = ()
    decodes: tuple[Decode, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.prefills or self.decodes)

    @property
    def lengths(self) -> dict[int, int]:
        """How much of each sequence is stored when the step is done, by number."""
        after_prefill = {prefill.number: prefill.stop for prefill in self.prefills}
        return after_prefill | {decode.number: decode.position + 1 for decode in self.decodes}


@dataclass(frozen=True)
class Outcome:
    """What a step gave.

    Args:
        tokens: the new token of each sequence that the plan gives one, by number.
        failed: why a sequence could not be run, by number; the others were.
    """

    tokens: Mapping[int, int]
    failed: Mapping[int, str] = field(default_factory=dict)


class Scheduler:
    """Sequences from the queue to their end. Between ``plan`` and ``commit`` only ``submit`` may be called.

    Args:
        slots: all free.
        max_waiting: sequences that may wait when no slot is free.
        chunk: prompt tokens in one step.
    """

    def __init__(self, slots: Slots, max_waiting: int, chunk: int) -> None:
        self._slots, self._max_waiting, self._chunk = slots, max_waiting, chunk
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}  # in the order of admission

    @property
    def waiting(self) -> int:
        """Sequences without a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Sequences with one."""
        return len(self._running)

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            QueueFull: when too many wait already.
        """
        if self.waiting >= self._max_waiting + self._slots.free:
            raise QueueFull
        self._waiting.append(sequence)

    def cancel(self, number: int) -> Sequence | None:
        """End a sequence wherever it is; ``None`` when it has ended before."""
        waiting = next((s for s in self._waiting if s.number == number), None)
        sequence = waiting or self._running.get(number)
        if sequence is None:
            return None
        sequence.finish = "cancelled"
        if waiting is not None:
            self._waiting.remove(waiting)
        else:
            self._leave(sequence)
        return sequence

    def plan(self) -> Plan:
        """The next step; empty when there is nothing to do."""
        while self._waiting and self._slots.free:
            self._admit(self._waiting.popleft())
        ready = sorted((s for s in self._running.values() if not s.prefilling), key=lambda s: s.slot)
        return Plan(tuple(self._prefills()), tuple(map(_decode, ready)))

    def commit(self, plan: Plan, tokens: Mapping[int, int], failed: Collection[int] = ()) -> list[Sequence]:
        """Take in what a step gave.

        Args:
            plan: the last one.
            tokens: the new token of each sequence that has one, by number.
            failed: sequences of the plan that could not be run; they leave.

        Returns:
            The sequences with a new token; the finished ones among them have left.
        """
        for number in failed:
            self._running[number].finish = "failed"
            self._leave(self._running[number])
        for number, length in plan.lengths.items():
            if number not in failed:
                self._store(self._running[number], length)
        news = [self._running[number] for number in tokens]
        for sequence in news:
            sequence.append(tokens[sequence.number])
            if sequence.finish:
                self._leave(sequence)
        return news

    def abort(self) -> list[Sequence]:
        """Drop all that run and whatever the slots hold, after a step that failed."""
        dropped = list(self._running.values())
        self._running.clear()
        self._slots.forget()
        return dropped

    def _admit(self, sequence: Sequence) -> None:
        prompt = sequence.keys[: sequence.prompt_length]
        sequence.slot, sequence.reused_length = self._slots.acquire(sequence.number, prompt)
        sequence.stored_length = sequence.reused_length
        self._running[sequence.number] = sequence

    def _prefills(self) -> list[Prefill]:
        left, prefills = self._chunk, []
        for sequence in self._running.values():
            if left and sequence.prefilling:
                prefills.append(_prefill(sequence, left))
                left -= prefills[-1].stop - prefills[-1].start
        return prefills

    def _store(self, sequence: Sequence, length: int) -> None:
        self._slots.extend(sequence.slot, sequence.keys[sequence.stored_length : length])
        sequence.stored_length = length

    def _leave(self, sequence: Sequence) -> None:
        del self._running[sequence.number]
        self._slots.release(sequence.slot)


def _prefill(sequence: Sequence, at_most: int) -> Prefill:
    start = sequence.stored_length
    stop = min(sequence.prompt_length, start + at_most)
    ends = stop == sequence.prompt_length
    return Prefill(sequence.number, sequence.slot, start, stop, ends, sequence.may_stop)


def _decode(sequence: Sequence) -> Decode:
    token_id = sequence.keys[-1]
    assert isinstance(token_id, int), "a generated token's key is its id"
    return Decode(
        number=sequence.number,
        slot=sequence.slot,
        position=sequence.stored_length,
        generated=sequence.generated_length,
        token_id=token_id,
        may_stop=sequence.may_stop,
    )
