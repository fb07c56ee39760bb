"""Streams of the Responses API: every event is validated, and their order checked."""

import json
from typing import Any

from overlay import Json
from spec import schema_problems

_SCHEMAS = {
    "response.created": "ResponseCreatedEvent",
    "response.in_progress": "ResponseInProgressEvent",
    "response.output_item.added": "ResponseOutputItemAddedEvent",
    "response.output_item.done": "ResponseOutputItemDoneEvent",
    "response.content_part.added": "ResponseContentPartAddedEvent",
    "response.content_part.done": "ResponseContentPartDoneEvent",
    "response.output_text.delta": "ResponseTextDeltaEvent",
    "response.output_text.done": "ResponseTextDoneEvent",
    "response.function_call_arguments.delta": "ResponseFunctionCallArgumentsDeltaEvent",
    "response.function_call_arguments.done": "ResponseFunctionCallArgumentsDoneEvent",
    "response.custom_tool_call_input.delta": "ResponseCustomToolCallInputDeltaEvent",
    "response.custom_tool_call_input.done": "ResponseCustomToolCallInputDoneEvent",
    "response.completed": "ResponseCompletedEvent",
    "response.incomplete": "ResponseIncompleteEvent",
    "response.failed": "ResponseFailedEvent",
}
_LAST = ("response.completed", "response.incomplete", "response.failed")


class BrokenResponseStream(Exception):
    """The response is not a stream of named events."""


def read_response(text: str) -> list[Json]:
    """The data of each event.

    Raises:
        BrokenResponseStream: an event is not a line ``event:`` and a line ``data:``, which agree on the type.
    """
    *events, rest = text.split("\n\n")
    if rest:
        raise BrokenResponseStream(f"it ends inside an event: {rest[:200]!r}")
    return [_event(event) for event in events if not event.startswith(":")]


def _event(event: str) -> Json:
    name, _, data = event.partition("\n")
    if not name.startswith("event: ") or not data.startswith("data: ") or "\n" in data:
        raise BrokenResponseStream(f"an event has not two lines: {event[:200]!r}")
    try:
        value = json.loads(data.removeprefix("data: "))
    except ValueError as error:
        raise BrokenResponseStream(f"an event is no JSON: {error}") from None
    if value.get("type") != name.removeprefix("event: "):
        raise BrokenResponseStream(f"{name!r} is not the type {value.get('type')!r}")
    return value


def response_stream_problems(text: str, request: Json) -> list[str]:
    """What is wrong with a stream, one sentence each."""
    try:
        events = read_response(text)
    except BrokenResponseStream as error:
        return [str(error)]
    unknown = [f"there is no event {each['type']!r}" for each in events if each["type"] not in _SCHEMAS]
    found = unknown or [
        f"event {number}: {problem}"
        for number, event in enumerate(events)
        for problem in schema_problems(_SCHEMAS[event["type"]], event)
    ]
    found = found or _frame_problems(events)
    return found or [*_item_problems(events), *_end_problems(events, request)]


def _frame_problems(events: list[Json]) -> list[str]:
    types = [event["type"] for event in events]
    found = []
    if [event["sequence_number"] for event in events] != list(range(len(events))):
        found.append("the sequence numbers are not 0, 1, 2, …")
    if types[:2] != ["response.created", "response.in_progress"]:
        found.append(f"the stream begins with {types[:2]}")
    if [each in _LAST for each in types] != [False] * (len(types) - 1) + [True]:
        found.append("exactly the last event ends the response")
    if len({event["response"]["id"] for event in events if "response" in event}) != 1:
        found.append("the id of the response changes")
    return found


def _item_problems(events: list[Json]) -> list[str]:
    """Items follow each other; each is announced, then grows, and at its end equals the sum of its deltas."""
    checker = _ItemChecker()
    for event in events:
        if "output_index" in event:
            checker.check(event["type"].removeprefix("response."), event)
    if events[-1]["response"]["output"] != checker.done and events[-1]["type"] != "response.failed":
        checker.found.append("the last event's output is not that of the items")
    return checker.found


class _ItemChecker:
    """Follows the items of a stream; ``found`` are the problems, ``done`` the complete items."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.done: list[Json] = []
        self._id: str | None = None
        self._text = ""

    def check(self, kind: str, event: Json) -> None:
        if event["output_index"] != len(self.done):
            self.found.append(f"{kind} has the index {event['output_index']}, not {len(self.done)}")
        elif kind == "output_item.added":
            if self._id is not None:
                self.found.append("an item begins before the last one is done")
            self._id, self._text = event["item"]["id"], ""
        elif event.get("item_id", event.get("item", {}).get("id")) != self._id:
            self.found.append(f"{kind} has the id of another item, or of one that is not announced")
        else:
            self._grow(kind, event)

    def _grow(self, kind: str, event: Json) -> None:
        if kind.endswith(".delta"):
            self._text += event["delta"]
        elif kind.endswith(".done") and self._text != _text_of_done(event):
            self.found.append(f"{kind} is not the sum of the deltas")
        if kind == "output_item.done":
            self.done.append(event["item"])
            self._id = None


def _text_of_done(event: Json) -> Any:
    if "item" in event:
        item = event["item"]
        called = {"function_call": "arguments", "custom_tool_call": "input"}.get(item["type"])
        return item[called] if called else item["content"][0]["text"]
    text = event.get("text", event.get("part", {}).get("text"))
    return event.get("arguments", event.get("input", text))


def _end_problems(events: list[Json], request: Json) -> list[str]:
    response = events[-1]["response"]
    if events[-1]["type"] != f"response.{response['status']}":
        return [f"{events[-1]['type']} has the status {response['status']}"]
    return response_problems(response, request)


def response_problems(response: Json, request: Json) -> list[str]:
    """What is wrong with a complete response, besides its schema."""
    if response["status"] not in ("completed", "incomplete"):
        return [f"the status is {response['status']}"]
    usage = response.get("usage")
    if not usage:
        return ["there is no usage"]
    found = []
    if usage["total_tokens"] != usage["input_tokens"] + usage["output_tokens"]:
        found.append("total_tokens is not the sum")
    if usage["output_tokens"] > (request.get("max_output_tokens") or usage["output_tokens"]):
        found.append("there are more tokens than were requested")
    if (response["incomplete_details"] is not None) != (response["status"] == "incomplete"):
        found.append(f"incomplete_details of a response that is {response['status']}")
    if not response["output"]:
        found.append("there is no output")
    wanted = "message.output_text.logprobs" in (request.get("include") or ())
    parts = [part for item in response["output"] for part in item.get("content", ())]
    if any(part.get("logprobs") and not wanted for part in parts):
        found.append("log probabilities were not requested")
    return found


def response_essence(response: Json) -> Json:
    """The parts of a response that two of the same request have in common."""
    items = [{**item, "id": None, "call_id": None} for item in response["output"]]
    usage = {name: response["usage"][name] for name in ("input_tokens", "output_tokens")}
    varying = ("id", "created_at", "completed_at")
    return {**response, **dict.fromkeys(varying), "output": items, "usage": usage}
