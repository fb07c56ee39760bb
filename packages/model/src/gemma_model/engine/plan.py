"""What one step runs: decided by the scheduler, carried out by a runner."""

from dataclasses import dataclass
from typing import NamedTuple

from gemma_model.engine.sequence import Key, Name


class Fork(NamedTuple):
    """A sequence whose slot becomes a copy of the one in which its prompt is run."""

    name: Name
    slot: int


@dataclass(frozen=True)
class Prefill:
    """Run tokens ``start`` up to ``stop`` of a prompt.

    The one that ends it gives the first new token of the sequence and of all its forks.
    """

    name: Name
    slot: int
    start: int
    stop: int
    ends_prompt: bool
    may_stop: bool
    forks: tuple[Fork, ...] = ()

    @property
    def names(self) -> tuple[Name, ...]:
        """Everyone whose prompt this is."""
        return (self.name, *(fork.name for fork in self.forks))


@dataclass(frozen=True)
class Decode:
    """Run the last token, which belongs at ``position``; ``generated`` of them came before the next."""

    name: Name
    slot: int
    position: int
    generated: int
    token_id: int
    may_stop: bool


class Waiting(NamedTuple):
    """A prompt, of which ``start`` tokens are in the cache, that cannot go on before a medium is encoded."""

    names: tuple[Name, ...]
    start: int


@dataclass(frozen=True)
class Encode:
    """Go on encoding a medium, for as long as a chunk of prompts takes, for all whose prompts wait for it."""

    key: Key
    prompts: tuple[Waiting, ...]

    @property
    def names(self) -> tuple[Name, ...]:
        """Everyone who waits for it."""
        return tuple(name for prompt in self.prompts for name in prompt.names)


class Row(NamedTuple):
    """A sequence that gets a new token, which may or may not be a stop token, behind ``generated`` others."""

    name: Name
    generated: int
    may_stop: bool


@dataclass(frozen=True)
class Plan:
    """One step: each sequence is in it at most once.

    Args:
        prefills: parts of prompts; none when a medium is encoded.
        decodes: new tokens.
        clears: slots whose contents are removed before anything else.
        encode: a medium.
        needed: keys of media that are to be kept, or encoded, for prompts that are being run.
    """

    prefills: tuple[Prefill, ...] = ()
    decodes: tuple[Decode, ...] = ()
    clears: tuple[int, ...] = ()
    encode: Encode | None = None
    needed: frozenset[Key] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.prefills or self.decodes or self.clears or self.encode)

    @property
    def names(self) -> list[Name]:
        """Everyone whom it is about."""
        prompts = [name for prefill in self.prefills for name in prefill.names]
        return prompts + list(self.encode.names if self.encode else ()) + [d.name for d in self.decodes]

    @property
    def rows(self) -> list[Row]:
        """Who gets a token when nothing fails; a prefill and its forks side by side, then the decodes."""
        ending = (prefill for prefill in self.prefills if prefill.ends_prompt)
        first = [Row(name, 0, prefill.may_stop) for prefill in ending for name in prefill.names]
        return first + [Row(decode.name, decode.generated, decode.may_stop) for decode in self.decodes]
