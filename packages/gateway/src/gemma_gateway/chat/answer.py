"""The model's chunks as the answer to a chat request: streamed, or folded into one."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionTokenLogprob,
)
from openai.types.chat.chat_completion import Choice, ChoiceLogprobs
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import (
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
)
from openai.types.chat.chat_completion_chunk import ChoiceLogprobs as ChunkLogprobs
from openai.types.chat.chat_completion_message_function_tool_call import Function

import gemma_wire as wire
from gemma_gateway.answers import Head, counts
from gemma_gateway.asking import Chunks
from gemma_gateway.logprobs import for_chat
from gemma_gateway.schema.chat import ChatRequest


@dataclass(frozen=True)
class Answer:
    """What all pieces of one answer have in common.

    Args:
        head: its id and the like.
        n: how many choices it has.
        nothing: the content of a choice without text: null where there may be calls instead.
        logprobs: whether log probabilities are told.
        include_usage: a streamed answer ends with its token counts.
        service_tier: told only to who asked for one.
    """

    head: Head
    n: int = 1
    nothing: Literal[""] | None = ""
    logprobs: bool = False
    include_usage: bool = False
    service_tier: Literal["default"] | None = None

    @staticmethod
    def to(body: ChatRequest, head: Head) -> "Answer":
        """The answer to this request."""
        tier: Literal["default"] | None = "default" if body.service_tier else None
        nothing: Literal[""] | None = None if body.callable_names else ""
        return Answer(head, body.n or 1, nothing, bool(body.logprobs), body.include_usage, tier)

    def whole(self, choices: list[Choice], usage: wire.Usage) -> ChatCompletion:
        """All of it at once."""
        return ChatCompletion(**self._head(), object="chat.completion", choices=choices, usage=counts(usage))

    def opening(self) -> ChoiceDelta:
        """Who speaks."""
        return ChoiceDelta(role="assistant", content=self.nothing, refusal=None)

    def piece(
        self,
        index: int,
        delta: ChoiceDelta,
        logprobs: ChunkLogprobs | None = None,
        finish: wire.FinishReason | None = None,
    ) -> ChatCompletionChunk:
        """One piece of one choice."""
        choice = ChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=finish)
        # usage is set where it is asked for, so that it is sent: null in every chunk but the last
        usage = {"usage": None} if self.include_usage else {}
        return ChatCompletionChunk(**self._head(), object="chat.completion.chunk", choices=[choice], **usage)

    def counts(self, usage: wire.Usage) -> ChatCompletionChunk:
        """The last chunk of a stream with ``include_usage``."""
        return ChatCompletionChunk(
            **self._head(), object="chat.completion.chunk", choices=[], usage=counts(usage)
        )

    def _head(self) -> dict[str, Any]:
        tier = {"service_tier": self.service_tier} if self.service_tier else {}
        return {**vars(self.head), **tier}


async def stream(answer: Answer, chunks: Chunks) -> AsyncGenerator[ChatCompletionChunk, None]:
    """The answer as OpenAI streams it. Nothing is yielded before the model's first chunk has come.

    Then all choices are opened in their order, on which the SDK relies. Log probabilities of tokens that
    brought no text wait for the next piece that says something.
    """
    opened = False
    held: dict[int, tuple[wire.TokenLogprob, ...]] = {}
    async with aclosing(chunks):
        async for chunk in chunks:
            for index in range(0 if opened else answer.n):
                yield answer.piece(index, answer.opening(), _told(answer, ()))
            opened = True
            tokens = held.pop(chunk.index, ()) + chunk.logprobs
            if chunk.text or chunk.tool_calls:
                yield answer.piece(chunk.index, _delta(chunk), _told(answer, tokens))
                tokens = ()
            if chunk.finish_reason:
                last = _told(answer, tokens) if tokens else None
                yield answer.piece(chunk.index, ChoiceDelta(), last, chunk.finish_reason)
            elif tokens:
                held[chunk.index] = tokens
            if chunk.usage and answer.include_usage:
                yield answer.counts(chunk.usage)


def _delta(chunk: wire.Chunk) -> ChoiceDelta:
    content = {"content": chunk.text} if chunk.text else {}
    calls = {"tool_calls": [_call_delta(call) for call in chunk.tool_calls]} if chunk.tool_calls else {}
    return ChoiceDelta(**content, **calls)


def _call_delta(call: wire.ToolCallDelta) -> ChoiceDeltaToolCall:
    """The id, the type and the name come with a call's first piece."""
    if call.id is None:
        return ChoiceDeltaToolCall(
            index=call.index, function=ChoiceDeltaToolCallFunction(arguments=call.arguments)
        )
    function = ChoiceDeltaToolCallFunction(name=call.name, arguments=call.arguments)
    return ChoiceDeltaToolCall(index=call.index, id=call.id, type="function", function=function)


def _told(answer: Answer, tokens: tuple[wire.TokenLogprob, ...]) -> ChunkLogprobs | None:
    return ChunkLogprobs(content=for_chat(tokens), refusal=None) if answer.logprobs else None


async def fold(answer: Answer, chunks: Chunks) -> ChatCompletion:
    """The whole answer: the same chunks, joined."""
    drafts = [_Draft() for _ in range(answer.n)]
    usage: wire.Usage | None = None
    async with aclosing(chunks):
        async for chunk in chunks:
            drafts[chunk.index].take(chunk)
            usage = chunk.usage or usage
    assert usage is not None, "an engine's last chunk tells the counts"
    choices = [draft.choice(index, answer) for index, draft in enumerate(drafts)]
    return answer.whole(choices, usage)


@dataclass
class _Call:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)

    def whole(self) -> ChatCompletionMessageFunctionToolCall:
        function = Function(name=self.name, arguments="".join(self.arguments))
        return ChatCompletionMessageFunctionToolCall(id=self.id, type="function", function=function)


class _Draft:
    """One choice, as far as it has come."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: dict[int, _Call] = {}
        self.logprobs: list[ChatCompletionTokenLogprob] = []
        self.finish: wire.FinishReason | None = None

    def take(self, chunk: wire.Chunk) -> None:
        self.texts.append(chunk.text)
        self.logprobs += for_chat(chunk.logprobs)
        self.finish = chunk.finish_reason or self.finish
        for call in chunk.tool_calls:
            if call.id is not None:
                self.calls[call.index] = _Call(call.id, call.name or "")
            self.calls[call.index].arguments.append(call.arguments)

    def choice(self, index: int, answer: Answer) -> Choice:
        assert self.finish is not None, "an engine's last chunk of a choice tells why it ended"
        logprobs = ChoiceLogprobs(content=self.logprobs, refusal=None) if answer.logprobs else None
        message = ChatCompletionMessage(
            role="assistant", content="".join(self.texts) or answer.nothing, refusal=None
        )
        if self.calls:
            message.tool_calls = [self.calls[index].whole() for index in sorted(self.calls)]
        return Choice(index=index, message=message, logprobs=logprobs, finish_reason=self.finish)
