"""The prefix cache: which blocks of tokens are stored, and what a prompt can load instead of running it.

Keys and values of complete blocks of tokens are copied from the slots to a pool of blocks. A tree finds them:
a node is one block of tokens after those of its ancestors, so two prompts with the same node have the same
tokens up to its end. A sequence holds the nodes of its blocks, and a node without users stays until the pool
needs its block for another. No tensors here: ``KVBlockPool`` copies.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from gemma_model.engine.sequence import SeqId, Sequence, TokenKey
from gemma_model.engine.step_plan import BlockCopy

BLOCK_TOKENS = 16
"""Tokens of a block. At most as many tokens of a stored prefix run again."""
DECODED_BLOCKS = 16
"""Blocks of generated tokens that are saved together, since each save costs an operation for each layer."""
TokenKeys = tuple[TokenKey, ...]


class PrefixNode:
    """One block of tokens after those of its ancestors.

    Args:
        parent: the block before; ``None`` for the root.
        token_keys: of its tokens.
    """

    __slots__ = ("block", "children", "last_used", "parent", "producer", "token_keys", "users")

    def __init__(self, parent: "PrefixNode | None", token_keys: TokenKeys) -> None:
        self.parent, self.token_keys = parent, token_keys
        self.children: dict[TokenKeys, PrefixNode] = {}
        self.block: int | None = None  # in the pool; if it has one, so have all its ancestors
        self.users = 0  # sequences that hold it
        self.last_used = 0
        self.producer: SeqId | None = None  # the sequence whose prompt is going to compute it


@dataclass
class _Path:
    """The nodes of a sequence."""

    nodes: list[PrefixNode]
    saved: int = 0  # so many of them have a block
    ended: bool = False  # one could not be saved, so none after it can


class PrefixCache:
    """Bookkeeping of the prefix cache. A sequence is held from ``start`` to ``end``.

    Args:
        blocks: of the pool; with none, nothing is ever stored.
        ring: positions that a slot keeps in all layers.
        block_tokens: tokens of a block.
    """

    def __init__(self, blocks: int, ring: int, block_tokens: int = BLOCK_TOKENS) -> None:
        self._ring, self._tokens, self._blocks = ring, block_tokens, blocks
        self._decoded_blocks = max(1, min(DECODED_BLOCKS, ring // block_tokens // 2))
        self._clock, self._order = count(1), count()
        self.clear()

    @property
    def used_tokens(self) -> int:
        """Tokens that are stored."""
        return (self._blocks - len(self._free)) * self._tokens

    def clear(self) -> None:
        """Forget everything."""
        self._root = PrefixNode(None, ())
        self._free = list(reversed(range(self._blocks)))
        self._paths: dict[SeqId, _Path] = {}
        self._saves: list[BlockCopy] = []
        self._unused: list[tuple[int, int, PrefixNode]] = []  # a heap; some entries are out of date

    def start(self, sequence: Sequence) -> None:
        """A sequence has a slot, and nothing of its prompt has run."""
        if self._blocks:
            path = self._paths[sequence.seq_id] = _Path([])
            self._extend(path, sequence, sequence.prompt_length // self._tokens)

    def load(self, sequence: Sequence) -> BlockCopy | None:
        """Continue a prompt after what is stored of it, but before its last token, which has to run.

        Returns:
            What to copy to the slot before the next step; ``None`` if nothing more is stored.
        """
        path = self._paths.get(sequence.seq_id)
        if path is None or not sequence.use_prefix_cache:
            return None
        self._count_saved(path)
        first, stop = sequence.stored_length // self._tokens, min(path.saved, self._reusable(sequence))
        if stop * self._tokens <= sequence.stored_length:
            return None
        sequence.reused_length += stop * self._tokens - sequence.stored_length
        sequence.stored_length = stop * self._tokens
        return BlockCopy(sequence.slot, first * self._tokens, _blocks_of(path.nodes[first:stop]))

    def must_wait(self, sequence: Sequence) -> bool:
        """Whether another prompt is computing the next block of a prompt; if none is, this one does it."""
        path, number = self._paths.get(sequence.seq_id), sequence.stored_length // self._tokens
        if path is None or not sequence.use_prefix_cache or number >= self._reusable(sequence):
            return False
        if path.nodes[number].producer not in (None, sequence.seq_id):
            return True
        if path.nodes[number].producer is None and not path.ended:
            for node in path.nodes[number:]:
                node.producer = node.producer or sequence.seq_id
        return False

    def store(self, sequence: Sequence) -> None:
        """Save the blocks of a sequence that are complete; those of generated tokens several at a time."""
        path = self._paths.get(sequence.seq_id)
        if path is None or path.ended:
            return
        in_prompt = sequence.stored_length <= sequence.prompt_length
        if in_prompt or sequence.stored_length // self._tokens - path.saved >= self._decoded_blocks:
            self._save(path, sequence)

    def fork(self, source: Sequence, target: Sequence) -> None:
        """The slot of one sequence has become a copy of another's."""
        if (path := self._paths.get(source.seq_id)) is not None:
            self._hold(path.nodes)
            self._paths[target.seq_id] = _Path(list(path.nodes), path.saved, path.ended)

    def hand_over(self, source: Sequence, target: Sequence) -> None:
        """A sequence continues the prompt, in the slot, of another one."""
        if (path := self._paths.pop(source.seq_id, None)) is not None:
            self._paths[target.seq_id] = path
            self._release_claims(path, source.seq_id, target.seq_id)

    def prompt_done(self, sequence: Sequence) -> None:
        """The prompt of a sequence has run: nobody waits for it any longer."""
        if (path := self._paths.get(sequence.seq_id)) is not None:
            self._release_claims(path, sequence.seq_id)

    def end(self, sequence: Sequence, trusted: bool = True) -> None:
        """A sequence leaves its slot; what it stored there can be saved if it is trusted."""
        if (path := self._paths.get(sequence.seq_id)) is None:
            return
        if trusted:
            self._save(path, sequence)
        del self._paths[sequence.seq_id]
        self._release_claims(path, sequence.seq_id)
        self._let_go(path.nodes)

    def take_saves(self) -> tuple[BlockCopy, ...]:
        """What to copy from the slots before anything else is written to them, in this order."""
        saves, self._saves = tuple(self._saves), []
        return saves

    def _reusable(self, sequence: Sequence) -> int:
        return (sequence.prompt_length - 1) // self._tokens

    def _extend(self, path: _Path, sequence: Sequence, blocks: int) -> None:
        """Hold the nodes of the first blocks of a sequence."""
        parent = path.nodes[-1] if path.nodes else self._root
        for number in range(len(path.nodes), blocks):
            token_keys = tuple(sequence.token_keys[number * self._tokens : (number + 1) * self._tokens])
            if (node := parent.children.get(token_keys)) is None:
                node = parent.children[token_keys] = PrefixNode(parent, token_keys)
            self._hold([node])
            path.nodes.append(node)
            parent = node

    def _save(self, path: _Path, sequence: Sequence) -> None:
        """Save the complete blocks of a sequence that are not stored yet, as far as possible."""
        complete = sequence.stored_length // self._tokens
        self._extend(path, sequence, complete)
        while path.saved < complete and not path.ended:
            node, start = path.nodes[path.saved], path.saved * self._tokens
            if node.block is None:
                kept = start >= sequence.stored_length - self._ring
                node.block = self._allocate() if kept else None
                if node.block is None:
                    path.ended = True
                    self._release_claims(path, sequence.seq_id)
                    return
                self._add_save(sequence.slot, start, node.block)
            path.saved += 1

    def _add_save(self, slot: int, start: int, block: int) -> None:
        last = self._saves[-1] if self._saves else BlockCopy(-1, 0, ())
        if (last.slot, last.start + len(last.blocks) * self._tokens) == (slot, start):
            self._saves[-1] = last._replace(blocks=(*last.blocks, block))
        else:
            self._saves.append(BlockCopy(slot, start, (block,)))

    @staticmethod
    def _count_saved(path: _Path) -> None:
        while path.saved < len(path.nodes) and path.nodes[path.saved].block is not None:
            path.saved += 1

    @staticmethod
    def _release_claims(path: _Path, seq_id: SeqId, to: SeqId | None = None) -> None:
        for node in path.nodes:
            if node.producer == seq_id:
                node.producer = to

    @staticmethod
    def _hold(nodes: Iterable[PrefixNode]) -> None:
        for node in nodes:
            node.users += 1

    def _let_go(self, nodes: list[PrefixNode]) -> None:
        now = next(self._clock)
        for node in reversed(nodes):
            node.users -= 1
            node.last_used = now
            if node.block is None and not node.users and not node.children:
                _remove(node)
            else:
                self._note_unused(node)

    def _note_unused(self, node: PrefixNode) -> None:
        """Note that a node's block may be taken, if nobody needs it: neither a sequence nor a later block."""
        if node.block is not None and not node.users and not node.children:
            heapq.heappush(self._unused, (node.last_used, next(self._order), node))
            if len(self._unused) > 2 * self._blocks + 64:
                self._unused = [entry for entry in self._unused if _is_unused(*entry)]
                heapq.heapify(self._unused)

    def _allocate(self) -> int | None:
        """A free block, or that of the least recently used node that nobody needs."""
        if self._free:
            return self._free.pop()
        while self._unused:
            entry = heapq.heappop(self._unused)
            if _is_unused(*entry):
                node = entry[2]
                block, node.block = node.block, None
                _remove(node)
                if node.parent is not None:
                    self._note_unused(node.parent)
                return block
        return None


def _is_unused(last_used: int, _: int, node: PrefixNode) -> bool:
    current = node.block is not None and node.last_used == last_used
    return current and not node.users and not node.children


def _remove(node: PrefixNode) -> None:
    assert node.parent is not None, "the root has users"
    del node.parent.children[node.token_keys]


def _blocks_of(nodes: Iterable[PrefixNode]) -> tuple[int, ...]:
    return tuple(node.block for node in nodes if node.block is not None)
