"""The items of a response while they are generated, and the events that tell of them.

The deltas are made from templates, which takes a twentieth of the time of making and serialising objects.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal
from uuid import uuid4

from openai.types.responses import (
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCustomToolCall,
    ResponseCustomToolCallInputDoneEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDoneEvent,
)
from pydantic import BaseModel
from pydantic_core import to_json

import gemma_wire as wire
from gemma_gateway.logprobs import token_name
from gemma_gateway.responses.form import to_bytes
from gemma_gateway.sse import NamedEvent

ItemStatus = Literal["completed", "incomplete"]
_CallStatus = Literal["in_progress", "completed", "incomplete"]
Counter = Callable[[], int]
"""The number of the next event."""


def named(event: BaseModel) -> NamedEvent:
    """An event that is sent unpadded; its ``type`` is its name."""
    return NamedEvent(str(event.type), to_bytes(event), padded=False)  # type: ignore[attr-defined]


class _Deltas:
    """Makes the deltas of one item, which differ only in their text."""

    def __init__(self, kind: str, **fields: Any) -> None:
        self._kind = kind
        self._start = to_json({"type": kind, **fields})[:-1]

    def event(self, number: int, text: str, more: bytes = b"") -> NamedEvent:
        """The event for this text.

        Args:
            number: of the event.
            text: may be empty.
            more: further fields, each with a comma in front.
        """
        data = b'%b,"sequence_number":%d,"delta":%b%b}' % (self._start, number, to_json(text), more)
        return NamedEvent(self._kind, data)


class MessageItem:
    """A message of the model, which has one part of text.

    Args:
        index: in the response's output.
        number: numbers the events.
    """

    def __init__(self, index: int, number: Counter) -> None:
        self._id = f"msg_{uuid4().hex}"
        self._number = number
        self._item = {"output_index": index}
        self._part = {"item_id": self._id, "output_index": index, "content_index": 0}
        self._deltas = _Deltas("response.output_text.delta", **self._part)
        self._texts: list[str] = []
        self._logprobs: list[wire.TokenLogprob] = []

    def start(self) -> Iterator[NamedEvent]:
        """The events that announce it."""
        item = ResponseOutputMessage(
            id=self._id, type="message", role="assistant", status="in_progress", content=[]
        )
        yield named(
            ResponseOutputItemAddedEvent(
                type="response.output_item.added", item=item, sequence_number=self._number(), **self._item
            )
        )
        part = ResponseOutputText(type="output_text", text="", annotations=[], logprobs=[])
        yield named(
            ResponseContentPartAddedEvent(
                type="response.content_part.added", part=part, sequence_number=self._number(), **self._part
            )
        )

    def add(self, text: str, logprobs: tuple[wire.TokenLogprob, ...]) -> NamedEvent:
        """The event for the next text and the log probabilities of the tokens up to it."""
        self._texts.append(text)
        self._logprobs += logprobs
        more = b',"logprobs":%b' % to_json([_short_logprob(token) for token in logprobs])
        return self._deltas.event(self._number(), text, more)

    def end(self, status: ItemStatus) -> Iterator[NamedEvent]:
        """The events that complete it."""
        text = "".join(self._texts)
        yield named(
            ResponseTextDoneEvent(
                type="response.output_text.done",
                text=text,
                logprobs=[_short_logprob(token) for token in self._logprobs],
                sequence_number=self._number(),
                **self._part,
            )
        )
        (part,) = self.item(status).content
        yield named(
            ResponseContentPartDoneEvent(
                type="response.content_part.done", part=part, sequence_number=self._number(), **self._part
            )
        )
        yield _item_done(self.item(status), self._number(), self._item)

    def item(self, status: ItemStatus) -> ResponseOutputMessage:
        """The message as far as it is generated."""
        logprobs = [_logprob(token) for token in self._logprobs]
        text = ResponseOutputText(
            type="output_text",
            text="".join(self._texts),
            annotations=[],
            logprobs=logprobs,
        )
        return ResponseOutputMessage(
            id=self._id, type="message", role="assistant", status=status, content=[text]
        )


class FunctionCallItem:
    """A call of a function.

    Args:
        index: in the response's output.
        number: numbers the events.
        call: the first delta of the call.
    """

    _PREFIX = "fc"
    _DELTA = "response.function_call_arguments.delta"

    def __init__(self, index: int, number: Counter, call: wire.ToolCallDelta) -> None:
        self._id = f"{self._PREFIX}_{uuid4().hex}"
        self._number = number
        self._call_id, self._name = call.id or "", call.name or ""
        self._item = {"output_index": index}
        self._fields = {"item_id": self._id, "output_index": index}
        self._deltas = _Deltas(self._DELTA, **self._fields)
        self._arguments: list[str] = []

    def start(self) -> Iterator[NamedEvent]:
        """The event that announces it."""
        yield named(
            ResponseOutputItemAddedEvent(
                type="response.output_item.added",
                item=self._item_in("in_progress"),
                sequence_number=self._number(),
                **self._item,
            )
        )

    def add(self, arguments: str) -> NamedEvent:
        """The event for the next part of the arguments."""
        self._arguments.append(arguments)
        return self._deltas.event(self._number(), arguments)

    def end(self, status: ItemStatus) -> Iterator[NamedEvent]:
        """The events that complete it."""
        yield named(self._done())
        yield _item_done(self.item(status), self._number(), self._item)

    def item(self, status: ItemStatus) -> ResponseFunctionToolCall | ResponseCustomToolCall:
        """The call as far as it is generated."""
        return self._item_in(status)

    def _done(self) -> BaseModel:
        return ResponseFunctionCallArgumentsDoneEvent(
            type="response.function_call_arguments.done",
            name=self._name,
            arguments="".join(self._arguments),
            sequence_number=self._number(),
            **self._fields,
        )

    def _item_in(self, status: _CallStatus) -> ResponseFunctionToolCall | ResponseCustomToolCall:
        return ResponseFunctionToolCall(
            id=self._id,
            type="function_call",
            call_id=self._call_id,
            name=self._name,
            arguments="".join(self._arguments),
            status=status,
        )


class CustomCallItem(FunctionCallItem):
    """A call of a custom tool, whose input is text."""

    _PREFIX = "ctc"
    _DELTA = "response.custom_tool_call_input.delta"

    def _done(self) -> BaseModel:
        return ResponseCustomToolCallInputDoneEvent(
            type="response.custom_tool_call_input.done",
            input="".join(self._arguments),
            sequence_number=self._number(),
            **self._fields,
        )

    def _item_in(self, _: _CallStatus) -> ResponseCustomToolCall:
        """OpenAI's type has no status."""
        return ResponseCustomToolCall(
            id=self._id,
            type="custom_tool_call",
            call_id=self._call_id,
            name=self._name,
            input="".join(self._arguments),
        )


def _item_done(item: ResponseOutputItem, number: int, place: dict[str, Any]) -> NamedEvent:
    return named(
        ResponseOutputItemDoneEvent(
            type="response.output_item.done", item=item, sequence_number=number, **place
        )
    )


def _short_logprob(token: wire.TokenLogprob) -> dict[str, Any]:
    """The form in events, which has no bytes."""
    return {**_named_logprob(token), "top_logprobs": [_named_logprob(other) for other in token.top]}


def _logprob(token: wire.TokenLogprob) -> dict[str, Any]:
    """The form in a message."""
    own = {**_named_logprob(token), "bytes": list(token.utf8)}
    top = [{**_named_logprob(other), "bytes": list(other.utf8)} for other in token.top]
    return {**own, "top_logprobs": top}


def _named_logprob(token: wire.Alternative) -> dict[str, Any]:
    return {"token": token_name(token), "logprob": token.logprob}
