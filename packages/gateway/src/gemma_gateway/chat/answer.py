"""The model's chunks as the answer to a chat request: streamed, or folded into one."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
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
from gemma_gateway.logprobs import for_chat, for_prompt, is_long
from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.threads import in_thread


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
        continuous_usage: each piece of a streamed answer tells the token counts of its choice so far.
        token_ids: the ids of the prompt's and the new tokens are told.
        as_ids: log probabilities name tokens by their ids.
        prompt_logprobs: how many of the likeliest are told at each token of the prompt; ``None``: nothing.
    """

    head: Head
    n: int = 1
    nothing: Literal[""] | None = ""
    logprobs: bool = False
    include_usage: bool = False
    service_tier: Literal["default"] | None = None
    continuous_usage: bool = False
    token_ids: bool = False
    as_ids: bool = False
    prompt_logprobs: int | None = None

    @staticmethod
    def to(body: ChatRequest, head: Head) -> "Answer":
        """The answer to this request."""
        tier: Literal["default"] | None = "default" if body.service_tier else None
        nothing: Literal[""] | None = None if body.callable_names else ""
        return Answer(
            head=head,
            n=body.n or 1,
            nothing=nothing,
            logprobs=bool(body.logprobs),
            include_usage=body.include_usage,
            service_tier=tier,
            continuous_usage=body.continuous_usage,
            token_ids=bool(body.return_token_ids),
            as_ids=bool(body.return_tokens_as_token_ids),
            prompt_logprobs=body.prompt_logprobs,
        )

    def whole(self, choices: list[Choice], usage: wire.Usage, of_prompt: dict[str, Any]) -> ChatCompletion:
        """All of it at once."""
        told = self._head() | of_prompt
        return ChatCompletion(**told, object="chat.completion", choices=choices, usage=counts(usage))

    def opening(self, index: int, first: wire.Chunk, of_prompt: dict[str, Any]) -> ChatCompletionChunk:
        """Who speaks: the first piece of a choice, made when the model's first chunk has come."""
        delta = ChoiceDelta(role="assistant", content=self.nothing, refusal=None)
        usage = first.choice_usage and first.choice_usage.model_copy(update={"completion_tokens": 0})
        return self.piece(index, delta, _Told(), usage=usage, of_prompt=of_prompt)

    def piece(
        self,
        index: int,
        delta: ChoiceDelta,
        told: "_Told | None" = None,
        finish: wire.FinishReason | None = None,
        usage: wire.Usage | None = None,
        of_prompt: dict[str, Any] | None = None,
    ) -> ChatCompletionChunk:
        """One piece of one choice.

        Args:
            index: of the choice.
            delta: what it says.
            told: the tokens that it brings; ``None``: nothing is said of tokens.
            finish: why the choice ended.
            usage: the token counts of the choice so far.
            of_prompt: what is told of the prompt, in the first piece of all.
        """
        choice = ChunkChoice(
            index=index,
            delta=delta,
            logprobs=None if told is None else self._logprobs(told),
            finish_reason=finish,
            **self.ids(told.token_ids if told else ()),
        )
        # usage is set where it is asked for, so that it is sent: null in every chunk but the last
        counted = counts(usage) if usage and self.continuous_usage else None
        rest: dict[str, Any] = {"usage": counted} if self.include_usage else {}
        rest |= of_prompt or {}
        return ChatCompletionChunk(**self._head(), object="chat.completion.chunk", choices=[choice], **rest)

    def ids(self, token_ids: Sequence[int]) -> dict[str, Any]:
        """The field that tells the ids of new tokens, where they are asked for."""
        return {"token_ids": list(token_ids)} if self.token_ids else {}

    def _logprobs(self, told: "_Told") -> ChunkLogprobs | None:
        content = for_chat(told.logprobs, self.as_ids)
        return ChunkLogprobs(content=content, refusal=None) if self.logprobs else None

    async def of_prompt(self, opening: wire.Chunk) -> dict[str, Any]:
        """The fields that tell of the prompt, of which the model's first chunk knows."""
        work = partial(self._of_prompt, opening)
        return await in_thread(work) if is_long(opening.prompt_logprobs) else work()

    def _of_prompt(self, opening: wire.Chunk) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self.token_ids:
            told["prompt_token_ids"] = list(opening.prompt_token_ids)
        if self.prompt_logprobs is not None and opening.prompt_logprobs is not None:
            told["prompt_logprobs"] = for_prompt(opening.prompt_logprobs, self.prompt_logprobs)
        return told

    def counts(self, usage: wire.Usage) -> ChatCompletionChunk:
        """The last chunk of a stream with ``include_usage``."""
        return ChatCompletionChunk(
            **self._head(), object="chat.completion.chunk", choices=[], usage=counts(usage)
        )

    def _head(self) -> dict[str, Any]:
        tier = {"service_tier": self.service_tier} if self.service_tier else {}
        return {**vars(self.head), **tier}


@dataclass(frozen=True)
class _Told:
    """The tokens of a piece, as far as they are told."""

    logprobs: tuple[wire.TokenLogprob, ...] = ()
    token_ids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.logprobs or self.token_ids)

    def then(self, chunk: wire.Chunk) -> "_Told":
        return _Told(self.logprobs + chunk.logprobs, self.token_ids + chunk.token_ids)


async def stream(answer: Answer, chunks: Chunks) -> AsyncGenerator[ChatCompletionChunk, None]:
    """The answer as OpenAI streams it. Nothing is yielded before the model's first chunk has come.

    Then all choices are opened in their order, on which the SDK relies. Tokens that brought no text are told
    with the next piece that says something.
    """
    opened = False
    held: dict[int, _Told] = {}
    async with aclosing(chunks):
        async for chunk in chunks:
            if not opened:
                of_prompt, opened = await answer.of_prompt(chunk), True
                for index in range(answer.n):
                    yield answer.opening(index, chunk, {} if index else of_prompt)
            told, usage = held.pop(chunk.index, _Told()).then(chunk), chunk.choice_usage
            if chunk.text or chunk.tool_calls:
                yield answer.piece(chunk.index, _delta(chunk), told, usage=usage)
                told = _Told()
            if chunk.finish_reason:
                yield answer.piece(chunk.index, ChoiceDelta(), told or None, chunk.finish_reason, usage)
            elif told:
                held[chunk.index] = told
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


async def fold(answer: Answer, chunks: Chunks) -> ChatCompletion:
    """The whole answer: the same chunks, joined."""
    drafts = [_Draft() for _ in range(answer.n)]
    usage: wire.Usage | None = None
    of_prompt: dict[str, Any] | None = None
    async with aclosing(chunks):
        async for chunk in chunks:
            of_prompt = await answer.of_prompt(chunk) if of_prompt is None else of_prompt
            drafts[chunk.index].take(chunk, answer)
            usage = chunk.usage or usage
    assert usage is not None, "an engine's last chunk tells the counts"
    choices = [draft.choice(index, answer) for index, draft in enumerate(drafts)]
    return answer.whole(choices, usage, of_prompt or {})


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
        self.token_ids: list[int] = []
        self.finish: wire.FinishReason | None = None

    def take(self, chunk: wire.Chunk, answer: Answer) -> None:
        self.texts.append(chunk.text)
        self.logprobs += for_chat(chunk.logprobs, answer.as_ids)
        self.token_ids += chunk.token_ids
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
        told = answer.ids(self.token_ids)
        return Choice(index=index, message=message, logprobs=logprobs, finish_reason=self.finish, **told)
