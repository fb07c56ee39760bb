"""Chat completions: an OpenAI request as the model's, the model's chunks as OpenAI's."""

import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.completion_usage import PromptTokensDetails

import gemma_wire as wire
from gemma_gateway.engine import Engine
from gemma_gateway.errors import ApiError, from_wire
from gemma_gateway.media import Place, read_images
from gemma_gateway.schema.chat import ChatRequest, ImagePart, Message, TextPart
from gemma_gateway.served import Served
from gemma_gateway.settings import Settings


@dataclass(frozen=True)
class Question:
    """A request in the model's terms, and the way back to the client's.

    Args:
        request: what the model is asked; always streamed, a whole answer is the fold of the stream.
        params: the model's field → the client's parameter, where the two differ.
    """

    request: wire.Request
    params: Mapping[str, str]

    def blame(self, error: wire.WireError) -> ApiError:
        """The model's error, about the parameter that the client knows."""
        if isinstance(error, wire.ContextLengthExceeded):
            return from_wire(error, "messages")
        name = error.field.removeprefix("options.")
        return from_wire(error, self.params.get(name, name) or None)


async def read(body: ChatRequest, settings: Settings) -> Question:
    """The question that a request asks.

    Raises:
        BadRequest: about a picture.
    """
    places = _places(body.messages)
    images = await read_images(places, settings)
    params = {f"images[{index}]": param for index, (param, _) in enumerate(places)}
    params |= {"images": "messages", "prompt": "messages"}
    if body.max_completion_tokens is not None:
        params["max_tokens"] = "max_completion_tokens"
    return Question(_request(body, images), params)


def _places(messages: list[Message]) -> list[Place]:
    return [
        (f"messages[{turn}].content[{index}].image_url.url", part.image_url.url)
        for turn, message in enumerate(messages)
        if not isinstance(message.content, str)
        for index, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]


def _request(body: ChatRequest, images: tuple[bytes, ...]) -> wire.Request:
    options = wire.Options(
        seed=body.seed,
        top_k=None if body.top_k is None else max(body.top_k, 0),
        stop=tuple(body.stop or ()),
        min_tokens=body.min_tokens or 0,
        ignore_eos=body.ignore_eos or False,
    )
    return wire.Request(
        messages=tuple(_message(message) for message in body.messages),
        images=images,
        max_tokens=body.limit,
        temperature=body.temperature,
        top_p=body.top_p,
        stream=True,
        options=options,
    )


def _message(message: Message) -> wire.Message:
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return wire.Message(role=role, content=message.content)
    return wire.Message(role=role, content=tuple(_part(part) for part in message.content))


def _part(part: TextPart | ImagePart) -> wire.Part:
    return wire.TextPart(text=part.text) if isinstance(part, TextPart) else wire.ImagePart()


@dataclass(frozen=True)
class Answer:
    """What all pieces of one answer have in common.

    Args:
        model: the canonical id of what is served.
        include_usage: a streamed answer ends with its token counts.
        service_tier: told only to who asked for one.
    """

    model: str
    include_usage: bool = False
    service_tier: Literal["default"] | None = None
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @staticmethod
    def to(body: ChatRequest, model: str) -> "Answer":
        """The answer to this request."""
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        return Answer(model, include_usage, "default" if body.service_tier else None)

    def whole(self, text: str, finish: wire.FinishReason, usage: wire.Usage) -> ChatCompletion:
        """All of it at once."""
        message = ChatCompletionMessage(role="assistant", content=text, refusal=None)
        answer = ChatCompletion(
            id=self.id,
            object="chat.completion",
            created=self.created,
            model=self.model,
            choices=[Choice(index=0, message=message, logprobs=None, finish_reason=finish)],
            usage=_counts(usage),
        )
        if self.service_tier:
            answer.service_tier = self.service_tier
        return answer

    def piece(self, delta: ChoiceDelta, finish: wire.FinishReason | None = None) -> ChatCompletionChunk:
        """One piece of it."""
        return self._chunk([ChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=finish)])

    def counts(self, usage: wire.Usage) -> ChatCompletionChunk:
        """The last chunk of a stream with ``include_usage``."""
        chunk = self._chunk([])
        chunk.usage = _counts(usage)
        return chunk

    def _chunk(self, choices: list[ChunkChoice]) -> ChatCompletionChunk:
        chunk = ChatCompletionChunk(
            id=self.id,
            object="chat.completion.chunk",
            created=self.created,
            model=self.model,
            choices=choices,
        )
        if self.service_tier:
            chunk.service_tier = self.service_tier
        if self.include_usage:
            chunk.usage = None  # set, so that it is sent: null in every chunk but the last
        return chunk


def _counts(usage: wire.Usage) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
    )


Chunks = AsyncGenerator[wire.Chunk, None]


async def ask(engine: Engine, served: Served, question: Question, request_id: str) -> Chunks:
    """The model's chunks; closing the generator cancels the generation.

    Raises:
        ApiError: what the model's error means to the client.
    """
    try:
        async with aclosing(engine.generate(question.request, request_id)) as chunks:
            async for chunk in chunks:
                yield chunk
    except wire.WireError as error:
        if isinstance(error, wire.Unavailable):
            served.forget()
        raise question.blame(error) from error


async def stream(answer: Answer, chunks: Chunks) -> AsyncGenerator[ChatCompletionChunk, None]:
    """The answer as OpenAI streams it. Nothing is yielded before the model's first chunk has come."""
    async with aclosing(chunks):
        opened = False
        async for chunk in chunks:
            if not opened:
                yield answer.piece(ChoiceDelta(role="assistant", content="", refusal=None))
                opened = True
            if chunk.text:
                yield answer.piece(ChoiceDelta(content=chunk.text))
            if chunk.finish_reason:
                yield answer.piece(ChoiceDelta(), chunk.finish_reason)
            if chunk.usage and answer.include_usage:
                yield answer.counts(chunk.usage)


async def fold(answer: Answer, chunks: Chunks) -> ChatCompletion:
    """The whole answer: the same chunks, joined."""
    texts: list[str] = []
    finish: wire.FinishReason | None = None
    usage: wire.Usage | None = None
    async with aclosing(chunks):
        async for chunk in chunks:
            texts.append(chunk.text)
            finish = chunk.finish_reason or finish
            usage = chunk.usage or usage
    assert finish is not None, "an engine's last chunk tells why it ended"
    assert usage is not None, "an engine's last chunk tells the counts"
    return answer.whole("".join(texts), finish, usage)
