"""Modifications of the Responses API, each of which the scenario beside it must detect."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from response_streams import read_response
from scenarios import (
    Scenario,
    response_bad_value,
    response_call,
    response_complete,
    response_is_incomplete,
    response_stream,
    response_stream_equals_complete,
)

Answer = tuple[int, dict[str, str], bytes]
Change = Callable[[int, dict[str, str], bytes], Answer]


def _complete(edit: Callable[[Any], object]) -> Change:
    """Edits a complete response."""

    def change(status: int, headers: dict[str, str], body: bytes) -> Answer:
        if headers["content-type"].startswith("text/event-stream"):
            return status, headers, body
        answer = json.loads(body)
        edit(answer)
        return status, headers, json.dumps(answer).encode()

    return change


def _events(edit: Callable[[list[Any]], object]) -> Change:
    """Edits the events of a stream."""

    def change(status: int, headers: dict[str, str], body: bytes) -> Answer:
        if not headers["content-type"].startswith("text/event-stream"):
            return status, headers, body
        events = read_response(body.decode())
        edit(events)
        text = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
        return status, headers, text.encode()

    return change


def _text(edit: Callable[[str], str]) -> Change:
    return lambda status, headers, body: (status, headers, edit(body.decode()).encode())


def _renumber(events: list[Any], place: int) -> None:
    """Removes an event without a gap in the numbers."""
    del events[place]
    for number, event in enumerate(events):
        event["sequence_number"] = number


def _place(events: list[Any], kind: str) -> int:
    return next(i for i, event in enumerate(events) if event["type"] == f"response.{kind}")


def _without(kind: str) -> Change:
    return _events(lambda events: _renumber(events, _place(events, kind)))


def response_mutants() -> Iterator[tuple[str, Scenario, Change]]:
    """Name, scenario, and modification."""
    yield "a response without usage", response_complete, _complete(lambda a: a.pop("usage"))
    yield (
        "a wrong total of a response",
        response_complete,
        _complete(lambda a: a["usage"].update(total_tokens=1)),
    )
    yield "lost metadata", response_complete, _complete(lambda a: a.update(metadata={}))
    yield "a response without output", response_complete, _complete(lambda a: a.update(output=[]))
    yield "an unknown field of a response", response_complete, _complete(lambda a: a.update(cost=3))
    yield "the wrong status", response_is_incomplete, _complete(lambda a: a.update(status="completed"))
    yield (
        "omitted tools are shown",
        response_call,
        _complete(lambda a: a["tools"].append({"type": "web_search"})),
    )
    yield (
        "arguments of a call that are no JSON",
        response_call,
        _complete(lambda a: a["output"][-1].update(arguments="{'city'")),
    )
    yield (
        "an error of a response without param",
        response_bad_value,
        _complete(lambda a: a["error"].update(param=None)),
    )
    yield "a stream of responses with [DONE]", response_stream, _text(lambda t: t + "data: [DONE]\n\n")
    yield (
        "events without names",
        response_stream,
        _text(lambda t: "".join(line + "\n" for line in t.split("\n")[:-1] if not line.startswith("event:"))),
    )
    yield "no response.created", response_stream, _without("created")
    yield "deltas of an item that is not announced", response_stream, _without("output_item.added")
    yield "an item that is not done", response_stream, _without("output_item.done")
    yield "a stream without its end", response_stream, _events(lambda e: e.pop())
    yield "a lost delta", response_stream, _without("output_text.delta")
    yield "numbers with a gap", response_stream, _events(lambda e: e[-1].update(sequence_number=999))
    yield (
        "a delta without item_id",
        response_stream,
        _events(lambda e: e[_place(e, "output_text.delta")].pop("item_id")),
    )
    yield (
        "a last event without output",
        response_stream,
        _events(lambda e: e[-1]["response"].update(output=[])),
    )
    yield (
        "lost log probabilities of a response",
        response_stream_equals_complete,
        _events(
            lambda e: [
                part.update(logprobs=[])
                for event in e
                for item in [event.get("item"), *event.get("response", {}).get("output", [])]
                for part in (item or {}).get("content", [])
            ]
        ),
    )
