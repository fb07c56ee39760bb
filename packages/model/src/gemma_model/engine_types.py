"""The interface of an engine: what it is asked, and what it returns. An engine handles token ids, never text.

``NativeEngine`` and ``TransformersEngine`` implement ``Engine``; the Triton backend knows no more than this.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from gemma_wire import Request, SamplingParams, Timings

DraftKind = Literal["grammar", "prediction", "ngram"]
Modality = Literal["image", "audio"]
StopCause = Literal["stop", "length", "cancelled"]
Finish = Literal["stop", "length", "cancelled", "failed"]


@dataclass(frozen=True)
class Media:
    """One decoded image or audio clip, ready for its encoder.

    Args:
        digest: SHA-256 of the encoder's input; equal digests mean equal soft tokens.
        features: image: pixels ``[3, height, width]`` fp32; audio: log-mel ``[frames, bins]`` fp32.
    """

    modality: Modality
    digest: bytes
    features: npt.NDArray[np.float32] = field(repr=False, compare=False)


@dataclass(frozen=True)
class MediaSpan:
    """The position of the soft tokens of one image or audio clip: ``token_ids[start : start + length]``."""

    start: int
    length: int
    media: Media


@dataclass(frozen=True)
class TokenizedPrompt:
    """Token ids, in which the placeholder of each image and audio clip is expanded to its soft tokens."""

    token_ids: tuple[int, ...]
    spans: tuple[MediaSpan, ...] = ()


class EngineSamplingParams(SamplingParams):
    """All sampling parameters of a request, without open choices.

    They apply in this order: penalties and bias, constraint, temperature, top-k, top-p and min-p.

    Args:
        temperature: 0 is greedy.
        top_p: keep the smallest set of tokens whose probabilities, within the top k, sum to at least this.
        top_k: keep this many of the most likely tokens; 0 keeps all.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def override(self, request: Request) -> "EngineSamplingParams":
        """These defaults, replaced by what a request sets."""
        given = {name: getattr(request.options, name) for name in SamplingParams.model_fields}
        given |= {"temperature": request.temperature, "top_p": request.top_p}
        return self.model_copy(update={name: value for name, value in given.items() if value is not None})


class Constraint(Protocol):
    """Restricts the next token, for example to what a grammar allows. Each choice has its own.

    An engine calls ``allowed`` once per token. It may do so in another thread while the model runs, but never
    at the same time as ``advance``.
    """

    def allowed(self) -> npt.NDArray[np.int32]:
        """A bit for each token id, int32 ``[ceil(vocabulary / 32)]``: token i is bit i % 32 of word i // 32.

        The stop tokens are allowed where the output may end; nothing else is where it must end.
        At least one token is allowed.
        """

    def advance(self, token_id: int) -> None:
        """Accept the next token, which was allowed. Not called for a stop token that ends the choice."""

    def fork(self) -> "Constraint":
        """An independent copy in the same state."""


@dataclass(frozen=True)
class EngineRequest:
    """A request to an engine.

    Args:
        max_tokens: maximum number of new tokens; the caller has checked that they fit the context.
        min_tokens: no stop token is generated before this many new tokens.
        stop_token_ids: a new token among these ends its choice (``ignore_eos`` is an empty set).
        n: number of choices, i.e. independent outputs for the same prompt, which is run once.
        logprobs: return the log probability of each new token and of this many of the most likely tokens.
        prompt_logprobs: the same for each token of the prompt.
        logprob_token_ids: with ``logprobs``, return those of these tokens instead of the most likely ones.
        constraint: in its initial state, which does not change: each choice uses a fork. Where it requires
            the end of the output, ``min_tokens`` has no effect.
        prediction: tokens that the output is expected to consist of, which makes it faster if it does; the
            output is the same without.
        variant: the nested model that runs the request; ``None``: the complete model.
        cache_salt: keys, values and soft tokens are reused only among requests with the same salt.
    """

    prompt: TokenizedPrompt
    sampling: EngineSamplingParams
    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None
    prediction: tuple[int, ...] = ()
    variant: str | None = None
    cache_salt: str | None = None


MIN_LOGPROB = -9999.0
"""Used instead of minus infinity, which JSON cannot represent."""


@dataclass(frozen=True)
class PositionLogprobs:
    """Log probabilities at one token position.

    They are of the model's own distribution: before penalties, bias, constraint, temperature and truncation.

    Args:
        logprob: of the token at this position; at least ``MIN_LOGPROB``, as are the others.
        top: ids and log probabilities of the most likely tokens, best first, or of the requested tokens.
        rank: of the token at this position, 1 for the most likely; set for prompt tokens only.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    rank: int | None = None


@dataclass(frozen=True)
class EngineOutput:
    """An update of one choice of a request: new tokens, its end, or both.

    Each choice ends with exactly one output that is ``last``, whatever the cause; the request ends with its
    last choice.

    Args:
        token_ids: new tokens, in order; a stop token is among them (usage counts it).
        choice: 0 up to ``n - 1``.
        logprobs: one for each of ``token_ids`` if requested, else empty.
        prompt_logprobs: one for each token of the prompt except the first; set in the first output with a
            token.
        finish: set in the last output.
        error: set instead of ``finish`` when the engine failed.
        cached_tokens: prompt tokens that were found in the cache; set in every output that has tokens.
        accepted_prediction_tokens: tokens of the request's prediction that were drafted so far and are in the
            output; set in every output that has tokens.
        rejected_prediction_tokens: the same, but not in the output.
        timings: set in the last output, if the engine measures them.
    """

    token_ids: tuple[int, ...] = ()
    choice: int = 0
    logprobs: tuple[PositionLogprobs, ...] = ()
    prompt_logprobs: tuple[PositionLogprobs, ...] = ()
    finish: StopCause | None = None
    error: str | None = None
    cached_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    timings: Timings | None = None

    @property
    def last(self) -> bool:
        """Whether this is the last output of the choice."""
        return self.finish is not None or self.error is not None


@dataclass(frozen=True)
class EngineTotals:
    """Counts since the engine started.

    Args:
        prompt_tokens: of all prompts, each counted once, whether run or found in the cache.
        generated_tokens: of all choices.
        prefix_queries: prompt tokens that were looked up in the cache.
        prefix_hits: prompt tokens that were found there.
        finished: choices that have ended, by cause.
        drafted: tokens of drafts that were checked, by kind.
        accepted: of these, tokens that the model generated too.
    """

    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    finished: Mapping[Finish, int] = field(default_factory=dict)
    drafted: Mapping[DraftKind, int] = field(default_factory=dict)
    accepted: Mapping[DraftKind, int] = field(default_factory=dict)


Duration = Literal["queue", "prefill", "decode", "first_token", "inter_token"]


@dataclass(frozen=True)
class Observation:
    """A measured duration, in seconds.

    ``queue``, ``prefill`` and ``first_token`` (the sum of both) are observed once per request, ``decode``
    once per choice, ``inter_token`` once per step, because all streams of a step wait equally long.
    """

    kind: Duration
    seconds: float


@dataclass(frozen=True)
class EngineInfo:
    """Identity, load and totals of an engine.

    Args:
        max_num_seqs: choices that can run at once: the slots of the KV cache.
        running: requests with slots.
        waiting: requests without slots.
        slots_used: choices with a slot.
        cache_tokens: token positions of the KV cache; 0 if its size is not fixed.
        cache_tokens_used: those that running requests occupy.
        prefix_cache_tokens: tokens that the prefix cache can hold.
        prefix_cache_tokens_used: those that it holds.
        failure: why the engine has stopped for good, if it has.
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
    prefix_cache_tokens: int = 0
    prefix_cache_tokens_used: int = 0
    totals: EngineTotals = field(default_factory=EngineTotals)
    failure: str | None = None


OutputCallback = Callable[[EngineOutput], None]
"""Called in the engine's thread with each output; must return at once."""


class Engine(Protocol):
    """Runs several requests at once. All methods may be called from any thread."""

    def submit(self, request: EngineRequest, on_output: OutputCallback) -> int:
        """Queue a request and return its id; ``on_output`` receives its outputs.

        Raises:
            gemma_wire.Overloaded: the queue is full.
            gemma_wire.InvalidRequest: this engine cannot do what is requested; names the field.
        """

    def cancel(self, request_id: int, choice: int | None = None) -> None:
        """End a request, or one choice of it, within one step, with ``finish="cancelled"``.

        It has no effect on what has already ended.
        """

    def info(self) -> EngineInfo:
        """A snapshot."""

    def observations(self) -> Sequence[Observation]:
        """What was measured since the last call. For one caller; if nobody calls, the oldest are dropped."""

    def close(self) -> None:
        """Cancel everything, and return when no thread is left."""
