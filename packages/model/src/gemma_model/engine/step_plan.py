"""What one step runs: planned by the scheduler, carried out by the model runner."""

from dataclasses import dataclass
from typing import NamedTuple

from gemma_model.engine.sequence import MediaKey, SeqId


class Fork(NamedTuple):
    """A sequence whose slot becomes a copy of the slot in which its prompt is run."""

    seq_id: SeqId
    slot: int


@dataclass(frozen=True)
class Prefill:
    """Run the tokens ``start`` up to ``stop`` of a prompt.

    The prefill that ends a prompt gives the first new token of the sequence and of all its forks.
    """

    seq_id: SeqId
    slot: int
    start: int
    stop: int
    ends_prompt: bool
    stop_allowed: bool
    forks: tuple[Fork, ...] = ()

    @property
    def seq_ids(self) -> tuple[SeqId, ...]:
        """All sequences with this prompt."""
        return (self.seq_id, *(fork.seq_id for fork in self.forks))


@dataclass(frozen=True)
class Decode:
    """Run the last token of a sequence, and a draft of those that follow it.

    Args:
        position: of that token.
        generated: number of tokens generated so far.
        token_id: of that token.
        stop_allowed: whether the next token may be a stop token.
        draft: tokens that may come next; those that do not are rejected.
    """

    seq_id: SeqId
    slot: int
    position: int
    generated: int
    token_id: int
    stop_allowed: bool
    draft: tuple[int, ...] = ()

    @property
    def draft_positions(self) -> range:
        """The positions of the draft."""
        return range(self.position + 1, self.position + 1 + len(self.draft))


class WaitingPrompt(NamedTuple):
    """A prompt, of which ``start`` tokens are in the cache, that waits for a medium to be encoded."""

    seq_ids: tuple[SeqId, ...]
    start: int


@dataclass(frozen=True)
class Encode:
    """Continue to encode a medium, as long as a chunk of prompts takes, for all prompts that wait for it."""

    key: MediaKey
    prompts: tuple[WaitingPrompt, ...]

    @property
    def seq_ids(self) -> tuple[SeqId, ...]:
        """All sequences that wait for it."""
        return tuple(seq_id for prompt in self.prompts for seq_id in prompt.seq_ids)


class BlockCopy(NamedTuple):
    """Copy keys and values between a slot, from the position ``start`` on, and blocks of the prefix cache."""

    slot: int
    start: int
    blocks: tuple[int, ...]


class TokenRow(NamedTuple):
    """A sequence that gets new tokens, after ``generated`` others; the first may be a stop token or not.

    It has a row of logits for its next token, and one after each token of its draft.
    """

    seq_id: SeqId
    generated: int
    stop_allowed: bool
    draft: tuple[int, ...] = ()

    @property
    def logits_rows(self) -> int:
        """The number of its rows of logits."""
        return 1 + len(self.draft)


@dataclass(frozen=True)
class StepPlan:
    """One step; each sequence is in it at most once.

    Args:
        prefills: parts of prompts; none if a medium is encoded.
        decodes: sequences that get next tokens: one, and more if their drafts are right.
        clears: slots whose contents are erased first.
        encode: a medium.
        needed: keys of media that must be kept, or encoded, for prompts that are being run.
        saves: copies from slots to the prefix cache, which come before everything else, in their order.
        loads: copies from the prefix cache to slots, after the clears and before anything is run.
    """

    prefills: tuple[Prefill, ...] = ()
    decodes: tuple[Decode, ...] = ()
    clears: tuple[int, ...] = ()
    encode: Encode | None = None
    needed: frozenset[MediaKey] = frozenset()
    saves: tuple[BlockCopy, ...] = ()
    loads: tuple[BlockCopy, ...] = ()

    def __bool__(self) -> bool:
        work = (self.prefills, self.decodes, self.clears, self.encode, self.saves, self.loads)
        return any(map(bool, work))

    @property
    def seq_ids(self) -> list[SeqId]:
        """All sequences of the plan."""
        prompts = [seq_id for prefill in self.prefills for seq_id in prefill.seq_ids]
        return prompts + list(self.encode.seq_ids if self.encode else ()) + [d.seq_id for d in self.decodes]

    @property
    def rows(self) -> list[TokenRow]:
        """The sequences that get a token if nothing fails: each prefill with its forks, then the decodes."""
        ending = (prefill for prefill in self.prefills if prefill.ends_prompt)
        first = [
            TokenRow(seq_id, 0, prefill.stop_allowed) for prefill in ending for seq_id in prefill.seq_ids
        ]
        return first + [TokenRow(d.seq_id, d.generated, d.stop_allowed, d.draft) for d in self.decodes]
