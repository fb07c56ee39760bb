"""One choice of a chat response: the engine's chunks as deltas, and deltas joined to a complete choice."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from openai.types.chat import (
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
from gemma_gateway.chat.response_format import ChatResponseFormat
from gemma_gateway.logprobs import to_chat_logprobs


class _Tokens(NamedTuple):
    """Tokens that are reported, and in which way."""

    logprobs: tuple[wire.TokenLogprob, ...] = ()
    token_ids: tuple[int, ...] = ()

    def plus(self, chunk: wire.Chunk) -> "_Tokens":
        return _Tokens(self.logprobs + chunk.logprobs, self.token_ids + chunk.token_ids)


_NO_TOKENS = _Tokens()


class ChatChoiceStreamer:
    """Turns the engine's chunks of one choice into the deltas that a stream sends.

    Tokens that add no text are reported together with the next delta that has content.
    """

    def __init__(self, index: int, form: ChatResponseFormat) -> None:
        self._index = index
        self._form = form
        self._held = _NO_TOKENS

    def start(self) -> ChunkChoice:
        """The first delta, which names the role."""
        delta = ChoiceDelta(role="assistant", content=self._form.empty_content, refusal=None)
        return self._choice(delta, _NO_TOKENS)

    def next(self, chunk: wire.Chunk) -> list[ChunkChoice]:
        """The deltas that a chunk makes; none if it has neither content nor an end."""
        choices = []
        tokens = self._held.plus(chunk)
        if chunk.text or chunk.tool_calls:
            choices.append(self._choice(_delta(chunk), tokens))
            tokens = _NO_TOKENS
        if chunk.finish_reason:
            choices.append(self._choice(ChoiceDelta(), tokens if any(tokens) else None, chunk.finish_reason))
            tokens = _NO_TOKENS
        self._held = tokens
        return choices

    def _choice(
        self, delta: ChoiceDelta, tokens: _Tokens | None, finish: wire.FinishReason | None = None
    ) -> ChunkChoice:
        """A delta with its tokens; ``None``: nothing is reported about tokens."""
        token_ids: dict[str, Any] = {}  # vLLM's, and unknown to the SDK's type
        if self._form.token_ids:
            token_ids["token_ids"] = list(tokens.token_ids) if tokens else []
        logprobs = None if tokens is None or not self._form.logprobs else self._logprobs(tokens)
        return ChunkChoice(
            index=self._index, delta=delta, logprobs=logprobs, finish_reason=finish, **token_ids
        )

    def _logprobs(self, tokens: _Tokens) -> ChunkLogprobs:
        return ChunkLogprobs(content=to_chat_logprobs(tokens.logprobs, self._form.as_ids), refusal=None)


def _delta(chunk: wire.Chunk) -> ChoiceDelta:
    content = {"content": chunk.text} if chunk.text else {}
    calls = {"tool_calls": [_call_delta(call) for call in chunk.tool_calls]} if chunk.tool_calls else {}
    return ChoiceDelta(**content, **calls)


def _call_delta(call: wire.ToolCallDelta) -> ChoiceDeltaToolCall:
    """The first delta of a call has its id, type and name."""
    if call.id is None:
        return ChoiceDeltaToolCall(
            index=call.index, function=ChoiceDeltaToolCallFunction(arguments=call.arguments)
        )
    function = ChoiceDeltaToolCallFunction(name=call.name, arguments=call.arguments)
    return ChoiceDeltaToolCall(index=call.index, id=call.id, type="function", function=function)


@dataclass
class _CallAccumulator:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)

    def call(self) -> ChatCompletionMessageFunctionToolCall:
        function = Function(name=self.name, arguments="".join(self.arguments))
        return ChatCompletionMessageFunctionToolCall(id=self.id, type="function", function=function)


class ChatChoiceAccumulator:
    """Joins the deltas of one choice."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: dict[int, _CallAccumulator] = {}
        self._logprobs: list[ChatCompletionTokenLogprob] = []
        self._token_ids: list[int] = []
        self._finish_reason: Any = None

    def add(self, choice: ChunkChoice) -> None:
        """Takes in the next delta."""
        self._texts.append(choice.delta.content or "")
        if choice.logprobs:
            self._logprobs += choice.logprobs.content or ()
        self._token_ids += (choice.model_extra or {}).get("token_ids", ())
        self._finish_reason = choice.finish_reason or self._finish_reason
        for call in choice.delta.tool_calls or ():
            assert call.function is not None
            if call.id is not None:
                self._calls[call.index] = _CallAccumulator(call.id, call.function.name or "")
            self._calls[call.index].arguments.append(call.function.arguments or "")

    def choice(self, index: int, form: ChatResponseFormat) -> Choice:
        """The complete choice."""
        assert self._finish_reason is not None, "an engine's last chunk of a choice has a finish_reason"
        logprobs = ChoiceLogprobs(content=self._logprobs, refusal=None) if form.logprobs else None
        content = "".join(self._texts) or form.empty_content
        message = ChatCompletionMessage(role="assistant", content=content, refusal=None)
        if self._calls:
            message.tool_calls = [self._calls[each].call() for each in sorted(self._calls)]
        token_ids: dict[str, Any] = {"token_ids": self._token_ids} if form.token_ids else {}
        return Choice(
            index=index, message=message, logprobs=logprobs, finish_reason=self._finish_reason, **token_ids
        )
