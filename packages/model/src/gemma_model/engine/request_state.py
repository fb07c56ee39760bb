"""The engine's state of one request, from its submission to the end of its last choice."""

import secrets
from dataclasses import dataclass, field, replace

from gemma_model.engine.drafts.drafter import Drafter
from gemma_model.engine.sequence import EncoderInput, MediaKey, Sequence, make_token_keys
from gemma_model.engine.stats import RequestTimer
from gemma_model.engine_types import EngineRequest, Media, OutputCallback, PositionLogprobs
from gemma_model.sampling.sampling_state import SamplingState

PROMPT_LOGPROB_COST = 6
"""Prompt tokens that run in the time of one whose log probability is requested: see docs/engine.md."""


@dataclass
class RequestState:
    """A request with the choices that have not ended."""

    request: EngineRequest
    on_output: OutputCallback
    timer: RequestTimer
    choices: dict[int, SamplingState]
    drafters: dict[int, Drafter] = field(default_factory=dict)
    prompt_logprobs: list[PositionLogprobs] = field(default_factory=list)


def with_seed(request: EngineRequest) -> EngineRequest:
    """The request, with a random seed if it has none."""
    if request.sampling.seed is not None:
        return request
    sampling = request.sampling.model_copy(update={"seed": secrets.randbits(63)})
    return replace(request, sampling=sampling)


def make_sequences(request_id: int, request: EngineRequest) -> list[Sequence]:
    """A sequence for each choice of a request."""
    inputs = encoder_inputs(request)
    spans = [(span.start, span.length, span.media.digest) for span in request.prompt.spans]
    token_keys = make_token_keys(request.prompt.token_ids, spans)
    if (namespace := (request.variant, request.cache_salt)) != (None, None):
        token_keys[0] = (*namespace, token_keys[0])  # a reused prefix begins with it
    has_logprobs = request.prompt_logprobs is not None
    return [
        Sequence(
            seq_id=(request_id, index),
            token_keys=list(token_keys),
            max_tokens=request.max_tokens,
            min_tokens=request.min_tokens,
            stop_token_ids=request.stop_token_ids,
            use_prefix_cache=not has_logprobs,
            prompt_cost=PROMPT_LOGPROB_COST if has_logprobs else 1,
            encoder_inputs=inputs,
        )
        for index in range(request.n)
    ]


def media_key(media: Media, cache_salt: str | None) -> MediaKey:
    """Equal keys mean equal soft tokens that may be shared."""
    return cache_salt, media.modality, media.digest


def encoder_inputs(request: EngineRequest) -> tuple[EncoderInput, ...]:
    """The media of a prompt, by position."""
    spans = sorted(request.prompt.spans, key=lambda span: span.start)
    return tuple(
        EncoderInput(media_key(span.media, request.cache_salt), span.start, span.start + span.length)
        for span in spans
    )


def find_media(request: EngineRequest, key: MediaKey) -> Media:
    """The medium of a prompt with this key."""
    return next(s.media for s in request.prompt.spans if media_key(s.media, request.cache_salt) == key)
