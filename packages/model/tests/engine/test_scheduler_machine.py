"""Any order of submit, cancel and step: what plans write into the cache is what they later read from it.

And no soft token is run before its medium is encoded, by one encoder that pauses.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import cast

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import QueueFull, Scheduler
from gemma_model.engine.sequence import EncoderInput, SeqId, Sequence, TokenKey
from gemma_model.engine.step_plan import Decode, Encode, Prefill, StepPlan

from .scheduler_fakes import (
    STOP,
    WINDOW,
    PretendCache,
    PretendEncoder,
    accepted,
    check_budget,
    stored_nodes,
    with_draft,
)

SLOTS, WAITING, CHUNK = 4, 2, 5
DRAFT = 3
"""Tokens of a draft at most."""
SOFT = 3
"""Soft tokens of a medium."""


class Machine(RuleBasedStateMachine):
    requests = Bundle("requests")
    kept, blocks, block_tokens = WINDOW + CHUNK, 40, 2

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[SeqId, Sequence] = {}
        self.ended: set[SeqId] = set()
        self.count = 0
        self.encoder, self.last = PretendEncoder(), StepPlan()
        self.slots, self.cache = KVSlots(SLOTS), PretendCache(self.kept + DRAFT)
        self.prefix_cache = PrefixCache(self.blocks, self.kept, self.block_tokens)
        self.scheduler = Scheduler(self.slots, self.prefix_cache, WAITING, CHUNK)

    @rule(
        target=requests,
        # Few different tokens and one common beginning: prefixes meet often.
        common=st.integers(0, 12),
        own=st.lists(st.integers(1, 2), min_size=1, max_size=10),
        max_tokens=st.integers(1, 6),
        min_tokens=st.integers(0, 6),
        n=st.sampled_from([1, 1, 1, 2, 3, 4]),
        use_prefix_cache=st.sampled_from([True, True, False]),
        cost=st.sampled_from([1, 1, 1, 2, 3, CHUNK + 1]),
        media=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=3),
    )
    def submit(
        self,
        common: int,
        own: list[int],
        max_tokens: int,
        min_tokens: int,
        n: int,
        use_prefix_cache: bool,
        cost: int,
        media: list[tuple[str, int]],
    ) -> object:
        token_keys: list[TokenKey] = [*([1, 2, 2] * 4)[:common], *own]
        inputs: list[EncoderInput] = []
        for medium, text in media:
            inputs.append(EncoderInput(medium, len(token_keys), len(token_keys) + SOFT))
            token_keys += [*((medium, place) for place in range(SOFT)), *[1] * text]
        rest = (max_tokens, min_tokens, frozenset({STOP}), use_prefix_cache, cost, tuple(inputs))
        return self._submit([Sequence((self.count, i), list(token_keys), *rest) for i in range(n)])

    @rule(number=requests, n=st.integers(1, 2))
    def next_turn(self, number: int, n: int) -> None:
        """Somebody continues what a finished request has said."""
        before = self.known[number, 0]
        if before.finish and len(before.token_keys) < 60:
            token_keys, rest = (
                [*before.token_keys, 1, 2],
                (3, 0, frozenset({STOP}), True, 1, before.encoder_inputs),
            )
            self._submit([Sequence((self.count, i), list(token_keys), *rest) for i in range(n)])

    def _submit(self, group: list[Sequence]) -> object:
        number, waiting = self.count, self.scheduler.waiting
        self.count += 1
        try:
            self.scheduler.submit(group)
        except QueueFull:
            assert waiting >= WAITING
            return multiple()
        self.known |= {sequence.seq_id: sequence for sequence in group}
        return number

    @rule(number=requests, choice=st.integers(0, 4))
    def cancel(self, number: int, choice: int) -> None:
        """One choice, or all of them."""
        seq_ids = [seq_id for seq_id in self.known if seq_id[0] == number and choice in (4, seq_id[1])]
        for seq_id in seq_ids:
            ended = self.scheduler.cancel(seq_id)
            assert (ended is None) == (seq_id in self.ended)
            if ended is not None:
                assert (ended.seq_id, ended.finish) == (seq_id, "cancelled")
                self.ended.add(seq_id)

    @rule(
        token=st.integers(0, 2),
        unlucky=st.integers(0, 5),
        broken=st.integers(0, 9),
        takes=st.integers(0, 2),
        forgets=st.booleans(),
        draft=st.lists(st.integers(0, 2), max_size=DRAFT),
        right=st.integers(0, DRAFT),
    )
    def step(
        self,
        token: int,
        unlucky: int,
        broken: int,
        takes: int,
        forgets: bool,
        draft: Collection[int] = (),
        right: int = 0,
    ) -> None:
        """A step; which of its prefills and new tokens fails; how much of each decode's draft is right."""
        stored = {x.seq_id: x.stored_length for x in self._firsts()}
        plan = self._plan(forgets)
        self._check(plan)
        decodes = (with_draft(decode, draft, self.known[decode.seq_id]) for decode in plan.decodes)
        plan = replace(plan, decodes=tuple(decodes))
        self._copy_blocks(plan, stored)
        failed = {seq_id for prefill in plan.prefills[unlucky : unlucky + 1] for seq_id in prefill.seq_ids}
        failed |= self._encode(plan.encode, takes, unlucky == 0)
        items: list[Prefill | Decode] = [*plan.prefills, *plan.decodes]
        for item in items:
            if item.seq_id not in failed:
                self._run(item)
        rows = [row for row in plan.rows if row.seq_id not in failed]
        tokens = {row.seq_id: accepted(row, right, token, self.known[row.seq_id]) for row in rows}
        for row in rows[broken : broken + 1]:
            failed.add(row.seq_id)
            tokens[row.seq_id] = tokens[row.seq_id][:-1]
        self.cache.broken |= {self.known[seq_id].slot for seq_id in failed}
        news = self.scheduler.commit(plan, tokens, failed)
        assert {sequence.seq_id for sequence in news} == tokens.keys() | failed
        for sequence in news:
            output = sequence.token_keys[sequence.prompt_length :]
            assert output[len(output) - len(tokens.get(sequence.seq_id, ())) :] == tokens.get(
                sequence.seq_id, []
            )
            assert (sequence.finish == "failed") == (sequence.seq_id in failed)
            assert sequence.generated_length <= sequence.max_tokens
            if sequence.finish:
                assert sequence.seq_id not in self.ended
                self.ended.add(sequence.seq_id)

    def _plan(self, forgets: bool) -> StepPlan:
        awaited = {each.key for x in self._firsts() for each in list(x.inputs_ahead)[:1]}
        encoded = frozenset(self.encoder.encoded)
        plan = self.scheduler.plan(encoded)
        self.encoder.retain(plan.needed, forgets)
        if plan.encode and self.last.encode and (before := self.last.encode.key) in awaited - encoded:
            assert plan.encode.key == before, "nobody begins anew what is half done"
        self.last = plan if plan.prefills or plan.encode else self.last
        return plan

    def _copy_blocks(self, plan: StepPlan, stored: dict[SeqId, int]) -> None:
        """Saves, clears and loads, in this order, as the runner does it."""
        for save in plan.saves:
            self.cache.save(save, self.block_tokens)
        assert set(plan.clears) <= self.cache.broken
        self.cache.broken -= set(plan.clears)
        for load in plan.loads:
            first = self.known[cast(SeqId, self.slots.owner(load.slot))]
            end = load.start + len(load.blocks) * self.block_tokens
            assert first.use_prefix_cache
            assert (
                load.start <= stored.get(first.seq_id, 0) < end == first.stored_length < first.prompt_length
            )
            self.cache.load(load, self.block_tokens)

    def _encode(self, encode: Encode | None, takes: int, fails: bool) -> set[SeqId]:
        if encode is None:
            return set()
        for seq_id in encode.seq_ids:
            assert self.slots.owner(self.known[seq_id].slot) == seq_id
        for first, *_ in (prompt.seq_ids for prompt in encode.prompts):
            assert next(iter(self.known[first].inputs_ahead)).key == encode.key
        if fails:
            self.encoder.fail()
            return set(encode.seq_ids)
        self.encoder.advance(encode, takes)
        return set()

    def _run(self, item: Prefill | Decode) -> None:
        assert self.slots.owner(item.slot) == item.seq_id
        token_keys = self.known[item.seq_id].token_keys
        if isinstance(item, Decode):
            tokens = [*token_keys, *item.draft]
            assert tokens[item.position] == item.token_id
            self.cache.run(item.slot, tokens, item.position, len(tokens))
            return
        self.cache.run(item.slot, token_keys, item.start, item.stop)
        for each in self.known[item.seq_id].encoder_inputs:
            if each.start < item.stop and item.start < each.stop:
                assert each.key in self.encoder.encoded
        for fork in item.forks:
            assert self.slots.owner(fork.slot) == fork.seq_id
            if item.ends_prompt:
                self.cache.copy(item.slot, fork.slot, item.stop)

    @rule()
    def fail(self) -> None:
        self._plan(forgets=True)
        self.encoder.retain(frozenset(), forgets=True)
        self.ended.update(sequence.seq_id for sequence in self.scheduler.abort())
        self.cache.broken = set(range(SLOTS))
        assert (self.slots.free, self.scheduler.prefix_cached) == (SLOTS, 0)

    def _check(self, plan: StepPlan) -> None:
        assert len(plan.seq_ids) == len(set(plan.seq_ids))
        assert not (plan.prefills and plan.encode), "nobody waits for both"
        if not plan.encode:
            check_budget(plan, self._firsts(), self.encoder.encoded, self.prefix_cache, CHUNK)
        assert all(p.start < p.stop for p in plan.prefills)
        work = len(self.ended) < len(self.known)
        assert bool(plan) == (work or bool(plan.saves)), "there is work, so some of it is done"
        assert not work or plan.prefills or plan.decodes or plan.encode, "not all wait for each other"
        decoding = {d.seq_id for d in plan.decodes}
        for seq_id, sequence in self.known.items():
            if seq_id not in self.ended and sequence.generated_length:
                assert seq_id in decoding, "nobody who can decode is left out"

    def _firsts(self) -> list[Sequence]:
        """Of each request the choice that runs the prompt, the oldest first."""
        prompts = [
            x for x in self.known.values() if x.slot >= 0 and x.seq_id not in self.ended and x.prefilling
        ]
        return [x for _, x in sorted({x.seq_id[0]: x for x in reversed(prompts)}.items())]

    @invariant()
    def every_slot_has_one_owner_or_none(self) -> None:
        alive = [x for seq_id, x in self.known.items() if seq_id not in self.ended]
        owned = {x.slot: x.seq_id for x in alive if x.slot >= 0}
        assert owned == {i: o for i in range(SLOTS) if (o := self.slots.owner(i)) is not None}
        assert SLOTS - self.slots.free == self.scheduler.running == len(owned)
        assert self.scheduler.waiting == len({x.seq_id[0] for x in alive if x.slot < 0})
        assert self.scheduler.stored == sum(x.stored_length for x in alive)

    @invariant()
    def who_came_first_is_served_first(self) -> None:
        alive = [x for seq_id, x in self.known.items() if seq_id not in self.ended]
        waits = [x.seq_id[0] for x in alive if x.slot < 0]
        serves = [x.seq_id[0] for x in alive if x.slot >= 0]
        assert not waits or not serves or max(serves) < min(waits)

    def teardown(self) -> None:
        for _ in range(1000):
            if len(self.ended) == len(self.known):
                break
            self.step(1, 9, 99, 1, True)
        assert len(self.ended) == len(self.known)
        assert (self.slots.free, self.scheduler.waiting, self.scheduler.stored) == (SLOTS, 0, 0)
        assert all(sequence.finish for sequence in self.known.values())
        assert self.scheduler.prefix_cached == self.block_tokens * stored_nodes(self.prefix_cache._root)


class ShortRing(Machine):
    """The rings may have lost a block before it is saved."""

    kept, block_tokens = WINDOW, 3


class SmallPool(Machine):
    """Blocks are taken from the least recently used, and sometimes none is free."""

    blocks, block_tokens = 5, 1


class NoPool(Machine):
    blocks = 0


SETTINGS = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestMachine = Machine.TestCase
TestMachine.settings = SETTINGS
TestShortRing, TestSmallPool, TestNoPool = ShortRing.TestCase, SmallPool.TestCase, NoPool.TestCase
TestShortRing.settings = TestSmallPool.settings = TestNoPool.settings = settings(SETTINGS, max_examples=40)
