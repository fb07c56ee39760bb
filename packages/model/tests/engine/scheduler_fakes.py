"""A KV cache and an encoder that check what the scheduler's plans do with them."""

from collections.abc import Collection
from dataclasses import replace

from gemma_model.engine.prefix_cache import PrefixCache, PrefixNode
from gemma_model.engine.sequence import MediaKey, Sequence, TokenKey
from gemma_model.engine.step_plan import BlockCopy, Decode, Encode, StepPlan, TokenRow

STOP, WINDOW = 0, 4
"""The stop token, and the positions that the sliding layer sees."""


class PretendCache:
    """One full and one sliding layer that hold, for each position, the key of its token."""

    def __init__(self, ring: int) -> None:
        self._ring = ring
        self._full: dict[tuple[int, int], TokenKey] = {}
        self._sliding: dict[tuple[int, int], tuple[int, TokenKey]] = {}
        self._blocks: dict[int, list[TokenKey]] = {}
        self.broken: set[int] = set()  # slots that may hold NaN

    def run(self, slot: int, token_keys: list[TokenKey], start: int, stop: int) -> None:
        """A chunk sees the cache as it was, and itself; then it is written."""
        assert slot not in self.broken, "what failed there is cleared before the next one"
        for position in range(start):
            assert self._full[slot, position] == token_keys[position]
        for position in range(max(0, start - WINDOW + 1), start):
            assert self._sliding[slot, position % self._ring] == (position, token_keys[position])
        for position in range(start, stop):
            self._full[slot, position] = token_keys[position]
            self._sliding[slot, position % self._ring] = position, token_keys[position]

    def save(self, copy: BlockCopy, tokens: int) -> None:
        """Each block takes what its slot holds; a ring must still hold it."""
        assert copy.slot not in self.broken
        for place, block in enumerate(copy.blocks):
            positions = range(copy.start + place * tokens, copy.start + (place + 1) * tokens)
            self._blocks[block] = [self._full[copy.slot, position] for position in positions]
            for position in positions:
                assert self._sliding[copy.slot, position % self._ring][0] == position

    def load(self, copy: BlockCopy, tokens: int) -> None:
        """As the pool does it: to a ring only what the next token sees."""
        keys = [key for block in copy.blocks for key in self._blocks[block]]
        for position, key in enumerate(keys, copy.start):
            self._full[copy.slot, position] = key
            if position > copy.start + len(keys) - WINDOW:
                self._sliding[copy.slot, position % self._ring] = position, key

    def copy(self, source: int, target: int, length: int) -> None:
        """As the runner does it: what the prompt has not reached may hold anything."""
        for position in range(length):
            self._full[target, position] = self._full[source, position]
        assert not self.broken & {source, target}
        for column in range(min(length, self._ring)):
            if (source, column) in self._sliding:  # a ring has only a loaded prefix's last tokens
                self._sliding[target, column] = self._sliding[source, column]


class PretendEncoder:
    """Takes some steps for a medium, and keeps as little as it may."""

    def __init__(self) -> None:
        self.encoded: set[MediaKey] = set()
        self._running: tuple[TokenKey, int] | None = None

    def retain(self, needed: frozenset[MediaKey], forgets: bool) -> None:
        if forgets:
            self.encoded &= needed
        if self._running and self._running[0] not in needed:
            self._running = None

    def advance(self, encode: Encode, takes: int) -> None:
        assert encode.key not in self.encoded
        key, left = self._running or (encode.key, takes)
        assert key == encode.key, "what was begun is finished first"
        self._running = (key, left - 1) if left else None
        self.encoded |= set() if left else {key}

    def fail(self) -> None:
        self._running = None


def with_draft(decode: Decode, draft: Collection[int], sequence: Sequence) -> Decode:
    """A decode with as much of a draft as its sequence has room for."""
    return replace(decode, draft=tuple(draft)[: sequence.max_tokens - decode.generated - 1])


def accepted(row: TokenRow, right: int, token: int, sequence: Sequence) -> list[int]:
    """The next tokens, up to the first that is not the draft's or ends the output."""
    wanted, own = [*row.draft[:right], (token + row.seq_id[1]) % 3], list[int]()
    for place, one in enumerate(wanted):
        stops = row.generated + place >= sequence.min_tokens
        own.append(one if stops else max(1, one))
        if own[-1] == STOP or list(row.draft[: place + 1]) != own:
            break
    return own


def stored_nodes(node: PrefixNode) -> int:
    """Nodes below one; each has a block and no users."""
    assert all(each.block is not None and not each.users for each in node.children.values())
    return sum(1 + stored_nodes(each) for each in node.children.values())


def check_budget(
    plan: StepPlan, firsts: list[Sequence], encoded: set[MediaKey], prefix_cache: PrefixCache, chunk: int
) -> None:
    """The chunk is not exceeded, nor left unused, and the oldest prompt has half of it.

    Args:
        plan: of a step.
        firsts: of each prompt the sequence that runs it, the oldest first.
        encoded: media.
        prefix_cache: knows which prompts wait for others.
        chunk: prompt tokens in one step.
    """
    costs = {first.seq_id: first.prompt_cost for first in firsts}
    run = {prefill.seq_id: prefill.stop - prefill.start for prefill in plan.prefills}
    spent = sum(tokens * costs[seq_id] for seq_id, tokens in run.items())
    assert spent <= chunk or list(run.values()) == [1]
    oldest = True
    for first in firsts:
        left = first.runnable_length(encoded) - first.stored_length
        share = run.get(first.seq_id, 0)
        if not share and prefix_cache.must_wait(first):
            continue  # another prompt computes what this one needs next
        if left and oldest:
            assert share >= min(left, max(1, (chunk + 1) // 2 // first.prompt_cost))
        oldest &= not left
        assert share >= left or chunk - spent < first.prompt_cost, "the chunk has room"
