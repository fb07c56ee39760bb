"""One choice of a chat response: the engine's chunks as deltas, and deltas joined to a complete choice."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from openai.types.chat import (
    ChatCompletionMessage,
    ChatCompletionMessageCustomToolCall,
    ChatCompletionMessageFunctionToolCall,
)
from openai.types.chat.chat_completion import Choice, ChoiceLogprobs
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import (
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
)
from openai.types.chat.chat_completion_chunk import ChoiceLogprobs as ChunkLogprobs
from openai.types.chat.chat_completion_message_custom_tool_call import Custom
from openai.types.chat.chat_completion_message_function_tool_call import Function

import gemma_wire as wire
from gemma_gateway.chat.response_options import ChatResponseFormat
from gemma_gateway.logprobs import to_chat_logprobs


class ChatChoiceDelta(NamedTuple):
    """What a part of the engine's stream adds to one choice, before it has OpenAI's form.

    Args:
        choice_index: of the choice in the response.
        role: the first delta of a choice names the role.
        text: new content.
        tool_calls: deltas of tool calls.
        logprobs: of the tokens that are reported with this delta.
        token_ids: of the same tokens.
        finish_reason: in the last delta.
    """

    choice_index: int
    role: Literal["assistant"] | None = None
    text: str = ""
    tool_calls: tuple[wire.ToolCallDelta, ...] = ()
    logprobs: tuple[wire.TokenLogprob, ...] = ()
    token_ids: tuple[int, ...] = ()
    finish_reason: wire.FinishReason | None = None

    @property
    def is_text(self) -> bool:
        """Whether it brings text and nothing else."""
        others = self.role or self.tool_calls or self.logprobs or self.token_ids or self.finish_reason
        return bool(self.text) and not others


class ChatChoiceStreamer:
    """Turns the engine's chunks of one choice into deltas.

    Tokens that add no text are reported together with the next delta that has content.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._logprobs: tuple[wire.TokenLogprob, ...] = ()
        self._token_ids: tuple[int, ...] = ()

    def start(self) -> ChatChoiceDelta:
        """The first delta, which names the role."""
        return ChatChoiceDelta(self._index, role="assistant")

    def next(self, chunk: wire.Chunk) -> list[ChatChoiceDelta]:
        """The deltas that a chunk makes; none if it has neither content nor an end."""
        deltas = []
        self._logprobs += chunk.logprobs
        self._token_ids += chunk.token_ids
        if chunk.text or chunk.tool_calls:
            deltas.append(
                ChatChoiceDelta(self._index, None, chunk.text, chunk.tool_calls, *self._take_tokens())
            )
        if chunk.finish_reason:
            last = ChatChoiceDelta(self._index, None, "", (), *self._take_tokens(), chunk.finish_reason)
            deltas.append(last)
        return deltas

    def _take_tokens(self) -> tuple[tuple[wire.TokenLogprob, ...], tuple[int, ...]]:
        tokens = self._logprobs, self._token_ids
        self._logprobs, self._token_ids = (), ()
        return tokens


def to_chunk_choice(delta: ChatChoiceDelta, form: ChatResponseFormat) -> ChunkChoice:
    """A delta as OpenAI streams it."""
    token_ids: dict[str, Any] = {}  # vLLM's, and unknown to the SDK's type
    if form.token_ids:
        token_ids["token_ids"] = list(delta.token_ids)
    logprobs = None
    if form.logprobs and (not delta.finish_reason or delta.logprobs or delta.token_ids):
        logprobs = ChunkLogprobs(content=to_chat_logprobs(delta.logprobs, form.as_ids), refusal=None)
    return ChunkChoice(
        index=delta.choice_index,
        delta=_to_choice_delta(delta, form),
        logprobs=logprobs,
        finish_reason=delta.finish_reason,
        **token_ids,
    )


def _to_choice_delta(delta: ChatChoiceDelta, form: ChatResponseFormat) -> ChoiceDelta:
    if delta.role:
        return ChoiceDelta(role=delta.role, content=form.empty_content, refusal=None)
    content = {"content": delta.text} if delta.text else {}
    calls = {"tool_calls": [_call_delta(call) for call in delta.tool_calls]} if delta.tool_calls else {}
    return ChoiceDelta(**content, **calls)


def _call_delta(call: wire.ToolCallDelta) -> ChoiceDeltaToolCall:
    """The first delta of a call has its id, type and name."""
    if call.custom:
        return _custom_call_delta(call)
    if call.id is None:
        return ChoiceDeltaToolCall(
            index=call.index, function=ChoiceDeltaToolCallFunction(arguments=call.arguments)
        )
    function = ChoiceDeltaToolCallFunction(name=call.name, arguments=call.arguments)
    return ChoiceDeltaToolCall(index=call.index, id=call.id, type="function", function=function)


def _custom_call_delta(call: wire.ToolCallDelta) -> ChoiceDeltaToolCall:
    """OpenAI's type describes functions only; its servers stream custom calls in this form."""
    fields: dict[str, Any] = {"index": call.index, "custom": {"input": call.arguments}}
    if call.id is not None:
        fields |= {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return ChoiceDeltaToolCall.model_construct(**fields)


@dataclass
class _CallAccumulator:
    id: str
    name: str
    custom: bool
    arguments: list[str] = field(default_factory=list)

    def call(self) -> ChatCompletionMessageFunctionToolCall | ChatCompletionMessageCustomToolCall:
        if self.custom:
            custom = Custom(name=self.name, input="".join(self.arguments))
            return ChatCompletionMessageCustomToolCall(id=self.id, type="custom", custom=custom)
        function = Function(name=self.name, arguments="".join(self.arguments))
        return ChatCompletionMessageFunctionToolCall(id=self.id, type="function", function=function)


class ChatChoiceAccumulator:
    """Joins the deltas of one choice."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: dict[int, _CallAccumulator] = {}
        self._logprobs: list[wire.TokenLogprob] = []
        self._token_ids: list[int] = []
        self._finish_reason: wire.FinishReason | None = None

    def add(self, delta: ChatChoiceDelta) -> None:
        """Takes in the next delta."""
        self._texts.append(delta.text)
        self._logprobs += delta.logprobs
        self._token_ids += delta.token_ids
        self._finish_reason = delta.finish_reason or self._finish_reason
        for call in delta.tool_calls:
            if call.id is not None:
                self._calls[call.index] = _CallAccumulator(call.id, call.name or "", call.custom)
            self._calls[call.index].arguments.append(call.arguments)

    def choice(self, index: int, form: ChatResponseFormat) -> Choice:
        """The complete choice."""
        assert self._finish_reason is not None, "an engine's last chunk of a choice has a finish_reason"
        logprobs = None
        if form.logprobs:
            logprobs = ChoiceLogprobs(content=to_chat_logprobs(self._logprobs, form.as_ids), refusal=None)
        content = "".join(self._texts) or form.empty_content
        message = ChatCompletionMessage(role="assistant", content=content, refusal=None)
        if self._calls:
            message.tool_calls = [self._calls[each].call() for each in sorted(self._calls)]
        token_ids: dict[str, Any] = {"token_ids": self._token_ids} if form.token_ids else {}
        return Choice(
            index=index, message=message, logprobs=logprobs, finish_reason=self._finish_reason, **token_ids
        )
