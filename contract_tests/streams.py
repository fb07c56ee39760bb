"""Server-sent events: validated one by one, and merged into a complete response."""

import json
import math
from typing import Any

from overlay import Json
from spec import STREAMED, schema_problems

DONE = "[DONE]"
SAME_IN_ALL = ("id", "created", "model", "object")


class BrokenStream(Exception):
    """The response is not a stream of OpenAI events."""


def read(text: str) -> list[Json]:
    """The JSON of each event, without ``[DONE]``.

    Raises:
        BrokenStream: it is not framed as OpenAI frames it, or does not end with ``[DONE]``.
    """
    *events, rest = text.split("\n\n")
    if rest:
        raise BrokenStream(f"it ends inside an event: {rest[:200]!r}")
    data = [_data(event) for event in events]
    if not data or data[-1] != DONE:
        raise BrokenStream(f"the last event is {data[-1][:200] if data else 'missing'!r}, not [DONE]")
    if DONE in data[:-1]:
        raise BrokenStream("something follows [DONE]")
    try:
        return [json.loads(each) for each in data[:-1]]
    except json.JSONDecodeError as error:
        raise BrokenStream(f"an event is no JSON: {error}") from None


def _data(event: str) -> str:
    if not event.startswith("data: ") or "\n" in event:
        raise BrokenStream(f"an event is not one line of data: {event[:200]!r}")
    return event.removeprefix("data: ")


def stream_problems(path: str, text: str, request: Json) -> list[str]:
    """What is wrong with a stream, one sentence each.

    Args:
        path: of the endpoint.
        text: all that came.
        request: the body that asked for it.
    """
    try:
        chunks = read(text)
    except BrokenStream as error:
        return [str(error)]
    found = [
        f"event {number}: {problem}"
        for number, chunk in enumerate(chunks)
        for problem in schema_problems(STREAMED[path], chunk)
    ]
    return found or [*_identity(chunks), *_choices(path, chunks, request), *_usage(chunks, request)]


def _identity(chunks: list[Json]) -> list[str]:
    return [
        f"{name} is not the same in all events: {sorted({repr(chunk[name]) for chunk in chunks})}"
        for name in SAME_IN_ALL
        if len({chunk[name] for chunk in chunks}) != 1
    ]


def _choices(path: str, chunks: list[Json], request: Json) -> list[str]:
    """Each choice begins with its role and ends once, with its finish reason."""
    found: list[str] = []
    opened: set[int] = set()
    ended: set[int] = set()
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        index = choice["index"]
        if index in ended:
            found.append(f"choice {index} goes on after its finish_reason")
        if path.endswith("/chat/completions") and (("role" in choice["delta"]) != (index not in opened)):
            found.append(f"choice {index}: the role belongs to its first event and to no other")
        opened.add(index)
        if choice["finish_reason"] is not None:
            ended.add(index)
    if opened != ended:
        found.append(f"choices without a finish_reason: {sorted(opened - ended)}")
    expected = wanted(path, request)
    if expected is not None and opened != set(range(expected)):
        found.append(f"the choices are {sorted(opened)}, asked for were {expected}")
    return found


def wanted(path: str, request: Json) -> int | None:
    """The number of choices of a request; ``None`` if it is unknown."""
    prompts = 1
    if path.endswith("/v1/completions"):
        prompt = request.get("prompt")
        if not isinstance(prompt, str | list):
            return None
        prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    return int(request.get("n") or 1) * prompts


def _usage(chunks: list[Json], request: Json) -> list[str]:
    """With ``include_usage`` only the last event has usage, and no choices; otherwise no event has it."""
    asked = bool((request.get("stream_options") or {}).get("include_usage"))
    if not asked:
        return ["usage was not asked for"] if any("usage" in chunk for chunk in chunks) else []
    *before, last = chunks
    found = [] if last.get("usage") and last["choices"] == [] else ["the last event is not the usage's"]
    if any(chunk.get("usage", ...) is not None for chunk in before):
        found.append("usage is not null in every event but the last")
    return found


def merge(path: str, chunks: list[Json]) -> Json:
    """The complete response: choices by index, and usage if the stream has it."""
    choices: dict[int, Json] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        into = choices.setdefault(choice["index"], {"index": choice["index"], "finish_reason": None})
        into["finish_reason"] = choice["finish_reason"] or into["finish_reason"]
        _add_logprobs(into, choice.get("logprobs"))
        if path.endswith("/chat/completions"):
            _add_delta(into.setdefault("message", {"content": "", "tool_calls": []}), choice["delta"])
        else:
            into["text"] = into.get("text", "") + choice["text"]
    usage = next((chunk["usage"] for chunk in chunks if chunk.get("usage")), None)
    return {"choices": [choices[index] for index in sorted(choices)], "usage": usage}


def _add_delta(message: Json, delta: Json) -> None:
    message["content"] += delta.get("content") or ""
    for call in delta.get("tool_calls") or []:
        calls = message["tool_calls"]
        called = call.get("function") or call["custom"]
        if call["index"] == len(calls):
            calls.append({"name": called["name"], "said": ""})
        calls[call["index"]]["said"] += called.get("arguments") or called.get("input") or ""


def _add_logprobs(into: Json, logprobs: Json) -> None:
    if logprobs:
        lists = into.setdefault("logprobs", {})
        for name, values in logprobs.items():
            if values is not None:
                lists[name] = lists.get(name, []) + values


def essence(whole: Json) -> Json:
    """The parts of a complete response that its stream must have as well: all but ids and times."""
    choices = []
    for choice in whole["choices"]:
        kept: dict[str, Any] = {"index": choice["index"], "finish_reason": choice["finish_reason"]}
        if "message" in choice:
            calls = [_called(call[call["type"]]) for call in choice["message"].get("tool_calls") or []]
            kept["message"] = {"content": choice["message"]["content"] or "", "tool_calls": calls}
        else:
            kept["text"] = choice["text"]
        _add_logprobs(kept, choice.get("logprobs"))
        choices.append(kept)
    return {"choices": choices, "usage": whole.get("usage")}


def _called(call: Json) -> Json:
    return {"name": call["name"], "said": call["input" if "input" in call else "arguments"]}


def alike(one: Json, other: Json) -> bool:
    """Equal, except for the last digits of log probabilities, which depend on concurrent requests."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=1e-3)
    return bool(one == other)
