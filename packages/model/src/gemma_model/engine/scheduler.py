"""Decides what the next step runs.

Slots are assigned first come, first served. A step decodes every sequence whose prompt is done
and runs at most one chunk of prompt tokens, which bounds the delay that a long prompt causes to the others.
The prompts share the chunk, so that a short one does not wait for a long one (``prefill_budget``). The
choices of a request get their slots together; one runs the prompt, which is then copied to the others.

A prompt runs up to its first medium that is not encoded yet. If there are both media to encode and prompts to
run, the steps alternate, so that decoding sequences do not wait for both in one step.

A prompt continues after the longest prefix that the prefix cache has. If another prompt is computing the next
block of tokens of a prompt, this one waits for it instead of computing the same.
"""

from collections import deque
from collections.abc import Collection, Container, Iterable, Mapping
from itertools import count

from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.prefill_budget import Demand, divide_budget
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.sequence import Finish, MediaKey, SeqId, Sequence
from gemma_model.engine.step_plan import Decode, Encode, Fork, Prefill, StepPlan, WaitingPrompt

Group = list[Sequence]
"""A request until its prompt is done: its choices, of which the first runs the prompt for all."""


class QueueFull(Exception):
    """The queue is full."""


class Scheduler:
    """Manages sequences from the queue to their end. Between ``plan`` and ``commit`` call only ``submit``.

    Args:
        slots: all free.
        prefix_cache: empty.
        max_waiting: maximum number of requests that wait for slots.
        chunk: prompt tokens in one step.
    """

    def __init__(self, slots: KVSlots, prefix_cache: PrefixCache, max_waiting: int, chunk: int) -> None:
        self._slots, self._prefix_cache = slots, prefix_cache
        self._max_waiting, self._chunk = max_waiting, chunk
        self._waiting: deque[Group] = deque()
        self._prefilling: list[Group] = []  # in the order of admission
        self._decoding: dict[SeqId, Sequence] = {}
        self._encoding: MediaKey | None = None  # the medium that is being encoded
        self._encoder_turns = count(1)
        self._encoded_last = False

    @property
    def slots(self) -> int:
        """Number of slots."""
        return self._slots.count

    @property
    def waiting(self) -> int:
        """Number of requests without slots."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of sequences with a slot."""
        return sum(map(len, self._prefilling)) + len(self._decoding)

    @property
    def stored(self) -> int:
        """Tokens of running sequences whose keys and values are in the cache."""
        return sum(sequence.stored_length for sequence in self._running())

    @property
    def prefix_cached(self) -> int:
        """Tokens that the prefix cache holds."""
        return self._prefix_cache.used_tokens

    def submit(self, group: Iterable[Sequence]) -> None:
        """Queue a request: one sequence for each choice, at most as many as there are slots.

        Raises:
            QueueFull: too many wait already.
        """
        self._waiting.append(list(group))
        if self._blocked() > self._max_waiting:
            self._waiting.pop()
            raise QueueFull

    def cancel(self, seq_id: SeqId) -> Sequence | None:
        """End a sequence in any state; ``None`` if it has already ended."""
        return self._end(seq_id, "cancelled")

    def plan(self, encoded: Container[MediaKey] = frozenset()) -> StepPlan:
        """The next step; empty if there is nothing to do.

        Args:
            encoded: the media whose soft tokens are available.
        """
        while self._waiting and len(self._waiting[0]) <= self._slots.free:
            self._admit(self._waiting.popleft())
        loads = tuple(filter(None, (self._prefix_cache.load(group[0]) for group in self._prefilling)))
        prefills, encode = self._prefills(encoded), self._encode(encoded)
        if prefills and encode:
            self._encoded_last = not self._encoded_last
            prefills, encode = ([], encode) if self._encoded_last else (prefills, None)
        ready = sorted(self._decoding.values(), key=lambda s: s.slot)
        needed = frozenset(self._needed(prefills))
        clears, saves = self._slots.take_to_clear(), self._prefix_cache.take_saves()
        return StepPlan(tuple(prefills), tuple(map(_decode, ready)), clears, encode, needed, saves, loads)

    def commit(
        self, plan: StepPlan, tokens: Mapping[SeqId, Iterable[int]], failed: Collection[SeqId] = ()
    ) -> list[Sequence]:
        """Process the result of a step.

        Args:
            plan: the last one.
            tokens: the new tokens of each sequence that has some: those before its failure if it failed.
            failed: sequences of the plan that could not be run; they end, and their slots are not trusted.

        Returns:
            The sequences that failed or have new tokens; the finished ones are removed.
        """
        for prefill, group in self._prefilled(plan):
            if not set(prefill.seq_ids) <= set(failed):
                self._store(group[0], prefill.stop, failed)
                if prefill.ends_prompt:
                    self._fork(group)
        news = [self._decoding[seq_id] for seq_id in tokens if seq_id not in failed]
        for seq_id, own in tokens.items():
            for token_id in own:
                self._decoding[seq_id].append(token_id)
        for decode in plan.decodes:
            sequence = self._decoding[decode.seq_id]
            self._store(sequence, sequence.length - 1, failed)  # the last token has not run
        for sequence in news:
            if sequence.finish:
                self._leave(sequence)
        return [ended for seq_id in failed if (ended := self._end(seq_id, "failed"))] + news

    def abort(self) -> list[Sequence]:
        """End all running sequences after a step that failed; the contents of all slots are lost."""
        dropped = list(self._running())
        for sequence in dropped:
            sequence.finish = "failed"
        self._prefilling.clear()
        self._decoding.clear()
        self._encoding = None
        self._slots.release_all()
        self._prefix_cache.clear()
        return dropped

    def _running(self) -> Iterable[Sequence]:
        yield from (sequence for group in self._prefilling for sequence in group)
        yield from self._decoding.values()

    def _blocked(self) -> int:
        """Number of requests in the queue for which there are no slots."""
        free = self._slots.free
        for place, group in enumerate(self._waiting):
            free -= len(group)
            if free < 0:
                return len(self._waiting) - place
        return 0

    def _admit(self, group: Group) -> None:
        for sequence in group:
            sequence.slot = self._slots.acquire(sequence.seq_id)
        group[0].encoder_turn = next(self._encoder_turns)
        self._prefix_cache.start(group[0])
        self._prefilling.append(group)

    def _prefills(self, encoded: Container[MediaKey]) -> list[Prefill]:
        shares = divide_budget([self._demand(group[0], encoded) for group in self._prefilling], self._chunk)
        return [
            _prefill(group, share) for group, share in zip(self._prefilling, shares, strict=True) if share
        ]

    def _demand(self, first: Sequence, encoded: Container[MediaKey]) -> Demand:
        waits = self._prefix_cache.must_wait(first)
        tokens = 0 if waits else first.runnable_length(encoded) - first.stored_length
        return Demand(tokens, first.prompt_cost)

    def _encode(self, encoded: Container[MediaKey]) -> Encode | None:
        """Encode one medium completely, then another; the prompts that wait take turns."""
        waiting: dict[MediaKey, list[Group]] = {}
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

    def _needed(self, prefills: Iterable[Prefill]) -> Iterable[MediaKey]:
        """The first medium ahead of each prompt, and those that the prefills run."""
        stops = {prefill.seq_id: prefill.stop for prefill in prefills}
        for first, *_ in self._prefilling:
            for place, each in enumerate(first.inputs_ahead):
                if place == 0 or each.start < stops.get(first.seq_id, 0):
                    yield each.key

    def _prefilled(self, plan: StepPlan) -> list[tuple[Prefill, Group]]:
        groups = {group[0].seq_id: group for group in self._prefilling}
        return [(prefill, groups[prefill.seq_id]) for prefill in plan.prefills]

    def _fork(self, group: Group) -> None:
        """A prompt is done: its choices continue independently."""
        first, *others = group
        self._prefilling.remove(group)
        self._prefix_cache.prompt_done(first)
        for other in others:
            self._prefix_cache.fork(first, other)
            other.stored_length, other.reused_length = first.stored_length, first.reused_length
        self._decoding.update((sequence.seq_id, sequence) for sequence in group)

    def _store(self, sequence: Sequence, length: int, failed: Collection[SeqId]) -> None:
        sequence.stored_length = length
        if sequence.seq_id not in failed:
            self._prefix_cache.store(sequence)

    def _end(self, seq_id: SeqId, finish: Finish) -> Sequence | None:
        sequence = self._decoding.get(seq_id) or self._withdraw(seq_id)
        if sequence is not None:
            sequence.finish = finish
            self._leave(sequence)
        return sequence

    def _withdraw(self, seq_id: SeqId) -> Sequence | None:
        """Remove a sequence from its group; the next choice continues the prompt that it was running."""
        groups = (*self._waiting, *self._prefilling)
        found = next(((group, s) for group in groups for s in group if s.seq_id == seq_id), None)
        if found is None:
            return None
        group, sequence = found
        if sequence is group[0] and sequence.slot >= 0 and len(group) > 1:
            self._hand_over_prompt(sequence, group[1])
        group.remove(sequence)
        if not group:
            (self._waiting if sequence.slot < 0 else self._prefilling).remove(group)
        return sequence

    def _hand_over_prompt(self, first: Sequence, other: Sequence) -> None:
        self._slots.hand_over(first.slot, other.seq_id)
        self._slots.hand_over(other.slot, first.seq_id)
        first.slot, other.slot = other.slot, first.slot
        self._prefix_cache.hand_over(first, other)
        other.stored_length, other.reused_length = first.stored_length, first.reused_length
        other.encoder_turn = first.encoder_turn

    def _leave(self, sequence: Sequence) -> None:
        self._decoding.pop(sequence.seq_id, None)
        if sequence.slot >= 0:
            trusted = sequence.finish != "failed"
            self._prefix_cache.end(sequence, trusted)
            self._slots.release(sequence.slot, trusted)


def _waiting(group: Group) -> WaitingPrompt:
    return WaitingPrompt(tuple(sequence.seq_id for sequence in group), group[0].stored_length)


def _prefill(group: Group, at_most: int) -> Prefill:
    first, *others = group
    start = first.stored_length
    stop = min(first.prompt_length, start + at_most)
    ends = stop == first.prompt_length
    forks = tuple(Fork(other.seq_id, other.slot) for other in others)
    return Prefill(first.seq_id, first.slot, start, stop, ends, first.stop_allowed, forks)


def _decode(sequence: Sequence) -> Decode:
    token_id = sequence.token_keys[-1]
    assert isinstance(token_id, int), "a generated token's key is its id"
    return Decode(
        seq_id=sequence.seq_id,
        slot=sequence.slot,
        position=sequence.stored_length,
        generated=sequence.generated_length,
        token_id=token_id,
        stop_allowed=sequence.stop_allowed,
    )
