"""What every engine is asked and answers. An engine speaks token ids, never text.

The native engine and the reference engine are both an ``Engine``; the backend knows no more than this.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Modality = Literal["image", "audio"]
StopCause = Literal["stop", "length", "cancelled"]
Finish = Literal["stop", "length", "cancelled", "failed"]


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
    """How logits become a token: penalties and bias, then a constraint, then temperature and truncation.

    Args:
        temperature: 0 is greedy.
        top_k: keep so many of the likeliest tokens; 0 keeps all.
        top_p: keep the smallest set whose probabilities, within the top k, sum to at least this.
        min_p: keep tokens whose probability is at least so much of the likeliest one's; 0 keeps all.
        repetition_penalty: divides positive and multiplies negative logits of tokens of prompt and answer;
            1 is none.
        frequency_penalty: taken from a token's logit once for each time it stands in the answer.
        presence_penalty: taken from the logits of tokens that stand in the answer.
        logit_bias: token id → what is added to its logit; ids outside the vocabulary have no effect.
        seed: equal seeds give equal tokens, whatever else runs; ``None`` draws one. Choice ``i`` of several
            draws other numbers than choice 0, and choice 0 the same as a generation of one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None


class Constraint(Protocol):
    """What may come next, where that is not for the model alone to say: a grammar. One for each choice.

    An engine asks ``allowed`` once for each token and may do so from another thread while the model runs,
    never at the same time as it calls ``advance``.
    """

    def allowed(self) -> npt.NDArray[np.int32]:
        """A bit for each token id, int32 ``[ceil(vocabulary / 32)]``: token i is bit i % 32 of word i // 32.

        Where the answer may end, the stop tokens are among the allowed; where it must, nothing else is.
        At least one token is allowed.
        """

    def advance(self, token_id: int) -> None:
        """Take in the token that came; it was allowed. A stop token that ends the choice is not told."""

    def fork(self) -> "Constraint":
        """Another one in the same state, which goes its own way from here."""


@dataclass(frozen=True)
class Generation:
    """One job for an engine.

    Args:
        max_tokens: at most so many new tokens; the caller has checked that they fit the context.
        min_tokens: no end of turn before so many new tokens.
        stop_token_ids: a new token among these ends its choice (``ignore_eos`` is an empty set).
        n: how many choices: answers to the same prompt, which is run once.
        logprobs: tell each new token's log probability, and those of so many of the likeliest.
        prompt_logprobs: tell each token's of the prompt, and those of so many of the likeliest.
        logprob_token_ids: with ``logprobs``, tell those of these tokens instead of the likeliest.
        constraint: at the beginning of the answer, and left there: each choice goes on with a fork of it.
            Where it demands an end, ``min_tokens`` has no say.
        variant: which nested model runs it; ``None``: the whole one.
        cache_salt: it reuses only keys, values and soft tokens of generations with the same salt.
    """

    prompt: Prompt
    sampling: Sampling
    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None
    variant: str | None = None
    cache_salt: str | None = None


LEAST_LOGPROB = -9999.0
"""Instead of minus infinity, which JSON does not know."""


@dataclass(frozen=True)
class Scores:
    """Log probabilities in one place of a text.

    They are of the model's own distribution: before penalties, bias, constraint, temperature and truncation.

    Args:
        logprob: of the token that stands there; at least ``LEAST_LOGPROB``, as are the others.
        top: ids and log probabilities of the likeliest, best first, or of the tokens that were asked for.
        rank: of the token that stands there, 1 for the likeliest; told of a prompt's tokens alone.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    rank: int | None = None


@dataclass(frozen=True)
class Times:
    """Seconds that a generation has spent in the queue, on its prompt, and on its new tokens so far."""

    queued: float
    prefill: float
    decode: float


@dataclass(frozen=True)
class Step:
    """News of one choice of a generation: new tokens, or its end, or both.

    Exactly one step ends each choice, whatever ends it; the generation is over when all choices are.

    Args:
        token_ids: new tokens, in order; a stop token is among them (usage counts it).
        choice: 0 up to ``n - 1``.
        scores: one for each of ``token_ids`` when they were asked for, else empty.
        prompt_scores: one for each token of the prompt but the first, in the first step that has a token.
        finish: set in the last step.
        error: set instead of ``finish`` when the engine broke.
        cached_tokens: of the prompt, what was in the cache already; in every step that has tokens.
        times: set in the last step, where the engine measures them.
    """

    token_ids: tuple[int, ...] = ()
    choice: int = 0
    scores: tuple[Scores, ...] = ()
    prompt_scores: tuple[Scores, ...] = ()
    finish: StopCause | None = None
    error: str | None = None
    cached_tokens: int = 0
    times: Times | None = None

    @property
    def last(self) -> bool:
        """Whether nothing follows for this choice."""
        return self.finish is not None or self.error is not None


@dataclass(frozen=True)
class Totals:
    """What an engine has done since it started.

    Args:
        prompt_tokens: of prompts, each counted once, whether run or found in the cache.
        generated_tokens: of all choices.
        prefix_queries: tokens of prompts that were looked up in the cache.
        prefix_hits: of those, found.
        finished: choices that have ended, by cause.
    """

    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    finished: Mapping[Finish, int] = field(default_factory=dict)


Duration = Literal["queue", "prefill", "decode", "first_token", "inter_token"]


@dataclass(frozen=True)
class Observation:
    """How many seconds something took.

    ``queue``, ``prefill`` and ``first_token`` (which is both together) are observed once for each request,
    ``decode`` once for each choice, ``inter_token`` once for each step, whose streams all wait equally long.
    """

    kind: Duration
    seconds: float


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is, how busy it is, and what it has done.

    Args:
        max_num_seqs: choices that can run at once: the slots of the cache.
        running: requests with slots.
        waiting: requests without.
        slots_used: choices with a slot.
        cache_tokens: places for keys and values of tokens; 0 where there is no cache of fixed size.
        cache_tokens_used: of those, taken by requests that run.
        failure: why it will never answer again, when that is so.
    """

    name: str
    device: str
    dtype: str
    memory_bytes: int
    max_num_seqs: int
    running: int
    waiting: int
    slots_used: int = 0
    cache_tokens: int = 0
    cache_tokens_used: int = 0
    totals: Totals = field(default_factory=Totals)
    failure: str | None = None


Listener = Callable[[Step], None]
"""Called from the engine's thread with each step; must return at once."""


class Engine(Protocol):
    """Runs generations, several at once. All methods may be called from any thread."""

    def submit(self, generation: Generation, listen: Listener) -> int:
        """Queue a generation and return its number; ``listen`` gets its steps.

        Raises:
            gemma_wire.Overloaded: when the queue is full.
            gemma_wire.InvalidRequest: when it asks for what this engine cannot do, naming the field.
        """

    def cancel(self, number: int, choice: int | None = None) -> None:
        """End a generation, or one choice of it, within one step, with ``finish="cancelled"``.

        What has ended is left alone.
        """

    def info(self) -> EngineInfo:
        """A snapshot."""

    def observations(self) -> Sequence[Observation]:
        """What was measured since the last call, which has one caller; the oldest are lost if none calls."""

    def close(self) -> None:
        """Cancel everything, and return when no thread is left."""
