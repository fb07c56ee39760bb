"""The engine's chunks as the response to a completion request: streamed, or complete.

A complete response is built from the stream: ``complete`` joins the same choices that ``stream`` sends.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from openai.types import Completion, CompletionChoice
from pydantic import SerializeAsAny

import gemma_wire as wire
from gemma_gateway.completions.choices import (
    CompletionChoiceAccumulator,
    CompletionChoiceStreamer,
    CompletionStreamChoice,
)
from gemma_gateway.completions.request import CompletionPrompt
from gemma_gateway.errors import BadRequest
from gemma_gateway.logprobs import is_large
from gemma_gateway.response_base import ResponseBase
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.usage import to_openai_usage
from gemma_gateway.worker_thread import in_thread

MAX_PROMPT_LOGPROBS = 2**20
"""Log probabilities that one response may report for all its prompts together."""
NumberedChunks = AsyncGenerator[tuple[int, wire.Chunk], None]
"""The chunks of all prompts, each with the number of its prompt."""


class CompletionResponse(Completion):
    """With choices that have more fields than OpenAI's type declares."""

    choices: list[SerializeAsAny[CompletionChoice]]


@dataclass(frozen=True)
class CompletionResponseFormat:
    """What a completion response contains, as its request asks for it.

    Args:
        base: its id and other common fields.
        body: the request.
        prompts: the prompts of ``body``.
    """

    base: ResponseBase
    body: CompletionRequest
    prompts: Sequence[CompletionPrompt]

    def index(self, number: int, chunk: wire.Chunk) -> int:
        """The choice that a chunk belongs to: all choices of the first prompt come first."""
        return number * self.body.candidates + chunk.index

    def chunk(self, choice: CompletionStreamChoice, so_far: wire.Usage | None) -> Completion:
        """A chunk of the stream, with the token counts of its choice so far if they are requested."""
        # set explicitly, so that it is sent: null in every chunk but the last
        counts = to_openai_usage(so_far) if so_far and self.body.continuous_usage else None
        usage: dict[str, Any] = {"usage": counts} if self.body.include_usage else {}
        return CompletionResponse(**vars(self.base), object="text_completion", choices=[choice], **usage)

    def with_usage(self, choices: Sequence[CompletionChoice], usage: wire.Usage) -> Completion:
        """The complete response, or the last chunk of a stream with ``include_usage``."""
        counts = to_openai_usage(usage)
        return CompletionResponse(
            **vars(self.base), object="text_completion", choices=list(choices), usage=counts
        )


class _Streamers:
    """A streamer for each choice of each prompt, and the token counts of all."""

    def __init__(self, form: CompletionResponseFormat) -> None:
        self._form = form
        self._streamers: dict[int, CompletionChoiceStreamer] = {}
        self._first_chunks: dict[int, wire.Chunk] = {}
        self._usages: list[wire.Usage] = []
        self._prompt_logprobs = 0

    async def next(self, number: int, chunk: wire.Chunk) -> list[CompletionStreamChoice]:
        """The stream's choices that a chunk of a prompt's generation makes."""
        first = self._first_chunks.get(number, chunk)
        starts = self._form.index(number, chunk) not in self._streamers
        work = partial(self._next, number, chunk)
        return await in_thread(work) if starts and is_large(first.prompt_logprobs) else work()

    def _next(self, number: int, chunk: wire.Chunk) -> list[CompletionStreamChoice]:
        first = self._first_chunks.setdefault(number, chunk)
        if first is chunk:
            self._check_prompt_logprobs(chunk)
        if chunk.usage:
            self._usages.append(chunk.usage)
        index = self._form.index(number, chunk)
        if index not in self._streamers:
            prompt = self._form.prompts[number]
            self._streamers[index] = CompletionChoiceStreamer(self._form.body, prompt, index, first)
        return self._streamers[index].next(chunk)

    def _check_prompt_logprobs(self, first: wire.Chunk) -> None:
        """Each choice reports those of its prompt; with many prompts they would fill the memory."""
        logprobs = first.prompt_logprobs or wire.PromptLogprobs()
        alternatives = sum(map(len, logprobs.top_ids))
        self._prompt_logprobs += (len(logprobs.token_ids) + alternatives) * self._form.body.candidates
        if self._prompt_logprobs > MAX_PROMPT_LOGPROBS:
            sentence = f"The prompts have more than {MAX_PROMPT_LOGPROBS:,} log probabilities to report."
            raise BadRequest(sentence, param="prompt", code="array_above_max_length")

    def usage(self) -> wire.Usage:
        """The token counts of all generations together."""
        reported = 0 if self._form.body.limit == 0 else 1
        return wire.Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in self._usages),
            completion_tokens=reported * sum(usage.completion_tokens for usage in self._usages),
            cached_tokens=sum(usage.cached_tokens for usage in self._usages),
        )


async def stream(form: CompletionResponseFormat, chunks: NumberedChunks) -> AsyncGenerator[Completion, None]:
    """The response as OpenAI streams it. Nothing is yielded before the engine's first chunk."""
    streamers = _Streamers(form)
    async with aclosing(chunks):
        async for number, chunk in chunks:
            for choice in await streamers.next(number, chunk):
                yield form.chunk(choice, chunk.choice_usage)
    if form.body.include_usage:
        yield form.with_usage([], streamers.usage())


async def complete(form: CompletionResponseFormat, chunks: NumberedChunks) -> Completion:
    """The complete response: the choices of the stream, joined, and of each prompt's candidates the best."""
    streamers, body = _Streamers(form), form.body
    accumulators = [CompletionChoiceAccumulator() for _ in range(len(form.prompts) * body.candidates)]
    async with aclosing(chunks):
        async for number, chunk in chunks:
            accumulators[form.index(number, chunk)].add_scores(chunk)
            for choice in await streamers.next(number, chunk):
                accumulators[choice.index].add(choice)
    best: list[CompletionChoiceAccumulator] = []
    for start in range(0, len(accumulators), body.candidates):
        candidates = accumulators[start : start + body.candidates]
        if body.candidates > body.choices:
            candidates.sort(key=CompletionChoiceAccumulator.mean_logprob, reverse=True)
        best += candidates[: body.choices]
    return form.with_usage([each.choice(index) for index, each in enumerate(best)], streamers.usage())
