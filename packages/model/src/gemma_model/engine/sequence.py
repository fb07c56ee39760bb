"""One answer's state; no tensors, no clock, no threads."""

from collections.abc import Container, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Finish = Literal["stop", "length", "cancelled", "failed"]
Name = tuple[int, int]
"""The number of a request, which is never used twice, and which of its choices."""
Key = Hashable
"""What makes a token what it is: its id, or for a soft token its medium's digest and its place in it."""


class EncoderInput(NamedTuple):
    """A medium whose soft tokens stand at ``start`` up to ``stop``; equal keys mean equal soft tokens."""

    key: Key
    start: int
    stop: int


@dataclass(eq=False)
class Sequence:
    """A prompt and what was generated after it.

    Args:
        name: of the request and choice.
        keys: of the prompt's tokens, then of the generated ones.
        max_tokens: at most so many new tokens.
        min_tokens: so many new tokens before a stop token may come.
        stop_token_ids: a new token among these is the last.
        reuses: what the cache holds of the prompt already; else all of it is run.
        prompt_cost: how much of a step's budget each token of the prompt takes.
        encoder_inputs: media of the prompt, in their order; each must be encoded before its soft tokens run.
    """

    name: Name
    keys: list[Key]
    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    reuses: bool = True
    prompt_cost: int = 1
    encoder_inputs: tuple[EncoderInput, ...] = ()
    prompt_length: int = field(init=False)
    slot: int = field(default=-1, init=False)  # in the cache; -1 while it waits
    stored_length: int = field(default=0, init=False)  # tokens whose keys and values are in the slot
    reused_length: int = field(default=0, init=False)  # of those, what an earlier sequence left there
    encoder_turn: int = field(default=0, init=False)  # who has the least is the next to have a medium encoded
    finish: Finish | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.keys)

    @property
    def generated_length(self) -> int:
        """Tokens beyond the prompt."""
        return len(self.keys) - self.prompt_length

    @property
    def prefilling(self) -> bool:
        """Whether part of the prompt is yet to be run."""
        return self.stored_length < self.prompt_length

    @property
    def inputs_ahead(self) -> Iterable[EncoderInput]:
        """Media with soft tokens that are yet to be run, in their order."""
        return (each for each in self.encoder_inputs if each.stop > self.stored_length)

    def runnable_length(self, encoded: Container[Key]) -> int:
        """Tokens of the prompt before the first medium ahead that is not encoded."""
        missing = (each.start for each in self.inputs_ahead if each.key not in encoded)
        return max(next(missing, self.prompt_length), self.stored_length)

    @property
    def may_stop(self) -> bool:
        """Whether the next token may be a stop token."""
        return self.generated_length >= self.min_tokens

    def append(self, token_id: int) -> None:
        """Take in a new token, and finish if it was the last."""
        self.keys.append(token_id)
        if token_id in self.stop_token_ids:
            self.finish = "stop"
        elif self.generated_length >= self.max_tokens:
            self.finish = "length"


def keys_of(token_ids: Iterable[int], media: Iterable[tuple[int, int, bytes]]) -> list[Key]:
    """The keys of a prompt.

    Args:
        token_ids: of the prompt, placeholders included.
        media: start, length and digest of each medium.
    """
    keys: list[Key] = list(token_ids)
    for start, length, digest in media:
        keys[start : start + length] = [(digest, place) for place in range(length)]
    return keys
