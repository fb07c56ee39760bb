"""What every engine is asked and answers. An engine speaks token ids, never text.

The native engine and the reference engine are both an ``Engine``; the backend knows no more than this.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Modality = Literal["image", "audio"]
StopCause = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Media:
    """One decoded picture or sound, ready for its tower.

    Args:
        digest: SHA-256 of what the tower will see; equal digests mean equal soft tokens.
        features: picture: pixels ``[3, height, width]`` fp32; sound: log-mel ``[frames, bins]`` fp32.
    """

    modality: Modality
    digest: bytes
    features: npt.NDArray[np.float32] = field(repr=False, compare=False)


@dataclass(frozen=True)
class MediaSpan:
    """Where the soft tokens of one medium stand: ``token_ids[start : start + length]``."""

    start: int
    length: int
    media: Media


@dataclass(frozen=True)
class Prompt:
    """Token ids, with every medium's soft-token placeholders already expanded."""

    token_ids: tuple[int, ...]
    spans: tuple[MediaSpan, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How logits become a token.

    Args:
        temperature: 0 is greedy.
        top_k: keep so many of the likeliest tokens; 0 keeps all.
        top_p: keep the smallest set whose probabilities sum to at least this.
        seed: equal seeds give equal tokens, whatever else runs; ``None`` draws one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Generation:
    """One job for an engine.

    Args:
        max_tokens: at most so many new tokens; the caller has checked that they fit the context.
        min_tokens: no end of turn before so many new tokens.
        stop_token_ids: a new token among these ends the generation (``ignore_eos`` is an empty set).
    """

    prompt: Prompt
    sampling: Sampling
    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Step:
    """News of one generation: new tokens, or its end, or both. Exactly one step ends a generation.

    Args:
        token_ids: new tokens, in order; a stop token is among them (usage counts it).
        finish: set in the last step.
        error: set instead of ``finish`` when the engine broke.
        cached_tokens: of the prompt, what was in the cache already; in every step that has tokens.
    """

    token_ids: tuple[int, ...] = ()
    finish: StopCause | None = None
    error: str | None = None
    cached_tokens: int = 0

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or self.error is not None


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is and how busy it is."""

    name: str
    device: str
    dtype: str
    memory_bytes: int
    max_num_seqs: int
    running: int
    waiting: int


Listener = Callable[[Step], None]
"""Called from the engine's thread with each step; must return at once."""


class Engine(Protocol):
    """Runs generations, several at once. All methods may be called from any thread."""

    def submit(self, generation: Generation, listen: Listener) -> int:
        """Queue a generation and return its number; ``listen`` gets its steps.

        Raises:
            gemma_wire.Overloaded: when the queue is full.
        """

    def cancel(self, number: int) -> None:
        """End a generation within one step, with ``finish="cancelled"``; an ended one is left alone."""

    def info(self) -> EngineInfo:
        """A snapshot."""

    def close(self) -> None:
        """Cancel everything, and return when no thread is left."""
