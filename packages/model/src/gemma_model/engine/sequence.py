"""The scheduler's state of one choice of a request; no tensors, no clock, no threads."""

from collections.abc import Container, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Finish = Literal["stop", "length", "cancelled", "failed"]
SeqId = tuple[int, int]
"""The id of a request, which is never used again, and the index of a choice."""
TokenKey = Hashable
"""Identifies a token for prefix reuse: its id, or the digest of a medium and the token's index there."""
MediaKey = Hashable
"""Identifies an image or audio clip; equal keys mean equal soft tokens."""


class EncoderInput(NamedTuple):
    """A medium whose soft tokens are at the positions ``start`` up to ``stop``."""

    key: MediaKey
    start: int
    stop: int


@dataclass(eq=False)
class Sequence:
    """A prompt and the tokens generated after it.

    Args:
        token_keys: of the prompt's tokens, then of the generated ones.
        max_tokens: maximum number of new tokens.
        min_tokens: number of new tokens before a stop token is allowed.
        stop_token_ids: a new token among these is the last.
        use_prefix_cache: reuse what the KV cache holds of the prompt; else all of it is run.
        prompt_cost: how much of a step's budget each token of the prompt takes.
        encoder_inputs: media of the prompt, by position; each must be encoded before its soft tokens run.
    """

    seq_id: SeqId
    token_keys: list[TokenKey]
    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    use_prefix_cache: bool = True
    prompt_cost: int = 1
    encoder_inputs: tuple[EncoderInput, ...] = ()
    prompt_length: int = field(init=False)
    slot: int = field(default=-1, init=False)  # in the KV cache; -1 while it waits
    stored_length: int = field(default=0, init=False)  # tokens whose keys and values are in the slot
    reused_length: int = field(default=0, init=False)  # of those, what an earlier sequence left there
    encoder_turn: int = field(default=0, init=False)  # the sequence with the lowest is the next to encode
    finish: Finish | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.token_keys)

    @property
    def length(self) -> int:
        """Number of tokens of the prompt and the output."""
        return len(self.token_keys)

    @property
    def generated_length(self) -> int:
        """Number of tokens after the prompt."""
        return len(self.token_keys) - self.prompt_length

    @property
    def prefilling(self) -> bool:
        """Whether part of the prompt has not run yet."""
        return self.stored_length < self.prompt_length

    @property
    def inputs_ahead(self) -> Iterable[EncoderInput]:
        """Media with soft tokens that have not run yet, by position."""
        return (each for each in self.encoder_inputs if each.stop > self.stored_length)

    def runnable_length(self, encoded: Container[MediaKey]) -> int:
        """Tokens of the prompt before the first medium that is not encoded yet."""
        missing = (each.start for each in self.inputs_ahead if each.key not in encoded)
        return max(next(missing, self.prompt_length), self.stored_length)

    @property
    def stop_allowed(self) -> bool:
        """Whether the next token may be a stop token."""
        return self.generated_length >= self.min_tokens

    def append(self, token_id: int) -> None:
        """Add a new token, and finish if it is the last."""
        self.token_keys.append(token_id)
        if token_id in self.stop_token_ids:
            self.finish = "stop"
        elif self.generated_length >= self.max_tokens:
            self.finish = "length"


def make_token_keys(token_ids: Iterable[int], media: Iterable[tuple[int, int, bytes]]) -> list[TokenKey]:
    """The token keys of a prompt.

    Args:
        token_ids: of the prompt, including soft tokens.
        media: start, length and digest of each medium.
    """
    token_keys: list[TokenKey] = list(token_ids)
    for start, length, digest in media:
        token_keys[start : start + length] = [(digest, index) for index in range(length)]
    return token_keys
