"""The engine's chunks as the response to a chat request: streamed, or complete.

A complete response is built from the stream: ``complete`` joins the same deltas that ``stream`` sends.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

from openai.types.chat import ChatCompletion, ChatCompletionChunk

import gemma_wire as wire
from gemma_gateway.chat.choices import (
    ChatChoiceAccumulator,
    ChatChoiceDelta,
    ChatChoiceStreamer,
    to_chunk_choice,
)
from gemma_gateway.chat.response_options import ChatResponseFormat
from gemma_gateway.chat.text_events import TextEvents
from gemma_gateway.generation import Chunks
from gemma_gateway.usage import to_openai_usage

Events = AsyncGenerator[ChatCompletionChunk | bytes, None]
"""Chunks, or their JSON."""


async def stream(form: ChatResponseFormat, chunks: Chunks) -> Events:
    """The response as OpenAI streams it. Nothing is yielded before the engine's first chunk.

    Then the first chunk of every choice is sent, in the order of the choices, on which the SDK relies.
    """
    common = form.common_fields
    texts = TextEvents(partial(_text_chunk, form, common))
    templates = not (form.logprobs or form.token_ids or form.continuous_usage)
    async with aclosing(_updates(form, chunks)) as updates:
        async for update in updates:
            so_far = update.usage_so_far if form.continuous_usage else None
            # set explicitly, so that it is sent: null in every chunk but the last
            usage = {"usage": so_far and to_openai_usage(so_far)} if form.include_usage else {}
            prompt_fields = update.prompt_fields
            for delta in update.deltas:
                if templates and delta.is_text and not prompt_fields:
                    yield texts.json(delta)
                    continue
                rest, choice = {**usage, **prompt_fields}, to_chunk_choice(delta, form)
                yield ChatCompletionChunk(**common, object="chat.completion.chunk", choices=[choice], **rest)
                prompt_fields = {}
            if update.usage and form.include_usage:
                final = to_openai_usage(update.usage)
                yield ChatCompletionChunk(**common, object="chat.completion.chunk", choices=[], usage=final)


def _text_chunk(
    form: ChatResponseFormat, common: Mapping[str, Any], delta: ChatChoiceDelta
) -> ChatCompletionChunk:
    usage: dict[str, Any] = {"usage": None} if form.include_usage else {}
    choice = to_chunk_choice(delta, form)
    return ChatCompletionChunk(**common, object="chat.completion.chunk", choices=[choice], **usage)


async def complete(form: ChatResponseFormat, chunks: Chunks) -> ChatCompletion:
    """The complete response: the deltas of the stream, joined."""
    accumulators = [ChatChoiceAccumulator() for _ in range(form.n)]
    usage: wire.Usage | None = None
    prompt_fields: dict[str, Any] = {}
    async with aclosing(_updates(form, chunks)) as updates:
        async for update in updates:
            prompt_fields |= update.prompt_fields
            usage = update.usage or usage
            for delta in update.deltas:
                accumulators[delta.choice_index].add(delta)
    assert usage is not None, "an engine's last chunk has the token counts"
    return ChatCompletion(
        **form.common_fields,
        **prompt_fields,
        object="chat.completion",
        choices=[each.choice(index, form) for index, each in enumerate(accumulators)],
        usage=to_openai_usage(usage),
    )


class _Update(NamedTuple):
    """One step of a response.

    Args:
        deltas: the next deltas of one choice, or the first of every choice.
        prompt_fields: about the prompt; not empty in the first update only.
        usage_so_far: the token counts of the choice so far, if they are requested.
        usage: the final token counts, in the last update.
    """

    deltas: list[ChatChoiceDelta]
    prompt_fields: dict[str, Any]
    usage_so_far: wire.Usage | None = None
    usage: wire.Usage | None = None


async def _updates(form: ChatResponseFormat, chunks: Chunks) -> AsyncGenerator[_Update, None]:
    """What the engine's chunks add to a response."""
    streamers = [ChatChoiceStreamer(index) for index in range(form.n)]
    started = False
    async with aclosing(chunks):
        async for chunk in chunks:
            if not started:
                started = True
                yield _start(streamers, chunk, await form.prompt_fields(chunk))
            yield _Update(streamers[chunk.index].next(chunk), {}, chunk.choice_usage, chunk.usage)


def _start(
    streamers: Sequence["ChatChoiceStreamer"], first: wire.Chunk, prompt_fields: dict[str, Any]
) -> _Update:
    so_far = first.choice_usage and first.choice_usage.model_copy(update={"completion_tokens": 0})
    return _Update([streamer.start() for streamer in streamers], prompt_fields, so_far)
