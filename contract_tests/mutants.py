"""Servers that violate the contract in one way each: real responses, modified before the client gets them."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from response_mutants import response_mutants
from scenarios import (
    Scenario,
    bad_value,
    chat_complete,
    chat_stream,
    chat_stream_equals_complete,
    chat_stream_equals_complete_with_everything,
    chat_stream_usage,
    choices,
    completion_complete,
    completion_stream_equals_complete,
    length,
    logprobs,
    models,
    required_tool,
    unknown_model,
)

Answer = tuple[int, dict[str, str], bytes]
Change = Callable[[int, dict[str, str], bytes], Answer]


@dataclass(frozen=True)
class Mutant:
    """A modification of responses, and the scenario that must detect it."""

    name: str
    detected_by: Scenario
    change: Change


class RecordedTransport(httpx.BaseTransport):
    """The real server; each request is sent once, and its response is recorded."""

    def __init__(self) -> None:
        self._real = httpx.HTTPTransport()
        self._answers: dict[tuple[str, str, bytes], Answer] = {}

    def answer(self, request: httpx.Request) -> Answer:
        """Status, headers and body."""
        asked = (request.method, str(request.url), request.read())
        if asked not in self._answers:
            answer = self._real.handle_request(request)
            self._answers[asked] = (answer.status_code, dict(answer.headers), answer.read())
        return self._answers[asked]

    def close(self) -> None:
        self._real.close()


class Mutating(httpx.BaseTransport):
    """Modifies the responses of the real server."""

    def __init__(self, recorded: RecordedTransport, change: Change) -> None:
        self._recorded, self._change = recorded, change

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, body = self._recorded.answer(request)
        status, headers, body = self._change(status, dict(headers), body)
        headers.pop("content-length", None)
        return httpx.Response(status, headers=headers, content=body)


def unchanged(status: int, headers: dict[str, str], body: bytes) -> Answer:
    """No modification."""
    return status, headers, body


def _json(edit: Callable[[Any], object]) -> Change:
    """Edits a complete response."""

    def change(status: int, headers: dict[str, str], body: bytes) -> Answer:
        answer = json.loads(body)
        edit(answer)
        return status, headers, json.dumps(answer).encode()

    return change


def _choice(edit: Callable[[Any], None]) -> Change:
    return _json(lambda answer: edit(answer["choices"][0]))


def _error(edit: Callable[[Any], None]) -> Change:
    return _json(lambda answer: edit(answer["error"]))


def _head(status: int | None = None, **headers: str) -> Change:
    """Changes the status or headers."""

    def change(old: int, got: dict[str, str], body: bytes) -> Answer:
        return (
            status or old,
            {**got, **{name.replace("_", "-"): value for name, value in headers.items()}},
            body,
        )

    return change


def _without(header: str) -> Change:
    return lambda status, headers, body: (
        status,
        {name: value for name, value in headers.items() if name != header},
        body,
    )


def _text(edit: Callable[[str], str]) -> Change:
    return lambda status, headers, body: (status, headers, edit(body.decode()).encode())


def _events(edit: Callable[[list[Any]], object]) -> Change:
    """Edits the events of a stream; other responses are unchanged."""

    def change(status: int, headers: dict[str, str], body: bytes) -> Answer:
        if not headers["content-type"].startswith("text/event-stream"):
            return status, headers, body
        events = [json.loads(event) for event in re.findall(r"data: (\{.*\})", body.decode())]
        edit(events)
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        return status, headers, "".join([*lines, "data: [DONE]\n\n"]).encode()

    return change


def _drop_text(events: list[Any]) -> None:
    spoken = [event for event in events if event["choices"] and _text_of(event["choices"][0])]
    events.remove(spoken[-1])


def _text_of(choice: Any) -> str:
    return str(choice.get("text") or choice.get("delta", {}).get("content") or "")


def _swap_last(events: list[Any]) -> None:
    events[-1], events[-2] = events[-2], events[-1]


def _all(name: str, value: Any) -> Callable[[list[Any]], None]:
    def edit(events: list[Any]) -> None:
        for event in events:
            event[name] = value

    return edit


Named = tuple[str, Scenario, Change]


def _complete() -> Iterator[Named]:
    yield "an answer without usage", chat_complete, _json(lambda a: a.pop("usage"))
    yield "a wrong total", chat_complete, _json(lambda a: a["usage"].update(total_tokens=1))
    yield "more tokens than asked for", length, _json(lambda a: a["usage"].update(completion_tokens=9))
    yield "another object", chat_complete, _json(lambda a: a.update(object="chat.completions"))
    yield "a number as id", chat_complete, _json(lambda a: a.update(id=5))
    yield "created as text", chat_complete, _json(lambda a: a.update(created="today"))
    yield "a field nobody documented", chat_complete, _json(lambda a: a.update(cost=3))
    yield "no choices", chat_complete, _json(lambda a: a.update(choices=[]))
    yield "a choice without index", chat_complete, _choice(lambda c: c.pop("index"))
    yield "an unknown finish_reason", chat_complete, _choice(lambda c: c.update(finish_reason="eos_token"))
    yield "the wrong finish_reason", length, _choice(lambda c: c.update(finish_reason="stop"))
    yield (
        "finish_reason tool_calls without any",
        chat_complete,
        _choice(lambda c: c.update(finish_reason="tool_calls")),
    )
    yield "no refusal", chat_complete, _choice(lambda c: c["message"].pop("refusal"))
    yield "another role", chat_complete, _choice(lambda c: c["message"].update(role="model"))


def _requested() -> Iterator[Named]:
    """Log probabilities, choices and tool calls."""
    yield (
        "log probabilities nobody asked for",
        chat_complete,
        _choice(lambda c: c.update(logprobs={"content": [], "refusal": None})),
    )
    yield (
        "a positive log probability",
        logprobs,
        _choice(lambda c: c["logprobs"]["content"][0].update(logprob=0.5)),
    )
    yield (
        "a token that is not the likeliest",
        logprobs,
        _choice(lambda c: c["logprobs"]["content"][0]["top_logprobs"].reverse()),
    )
    yield "one choice too few", choices, _json(lambda a: a["choices"].pop())
    yield (
        "the same choice four times",
        choices,
        _json(lambda a: [c.update(message=a["choices"][0]["message"]) for c in a["choices"]]),
    )
    yield (
        "the prompt counted for each choice",
        choices,
        _json(
            lambda a: a["usage"].update(
                prompt_tokens=a["usage"]["prompt_tokens"] * len(a["choices"]),
                total_tokens=a["usage"]["prompt_tokens"] * len(a["choices"])
                + a["usage"]["completion_tokens"],
            )
        ),
    )
    yield (
        "arguments that are no JSON",
        required_tool,
        _choice(lambda c: c["message"]["tool_calls"][0]["function"].update(arguments="{'city'")),
    )
    yield (
        "arguments outside the schema",
        required_tool,
        _choice(
            lambda c: c["message"]["tool_calls"][0]["function"].update(
                arguments='{"city": "Oslo", "days": 1}'
            )
        ),
    )
    yield (
        "arguments as an object",
        required_tool,
        _choice(lambda c: c["message"]["tool_calls"][0]["function"].update(arguments={})),
    )


def _transport() -> Iterator[Named]:
    """The transport of a complete response: its head, and a truncated body."""
    yield "an HTML page", chat_complete, _head(content_type="text/html")
    yield "broken JSON", chat_complete, _text(lambda text: text[:-1])
    yield "201 for 200", chat_complete, _head(201)
    yield "no request id", chat_complete, _without("x-request-id")


def _completed() -> Iterator[Named]:
    yield (
        "a completion that is a chat",
        completion_complete,
        _json(lambda a: a.update(object="chat.completion")),
    )
    yield "a completion without text", completion_complete, _choice(lambda c: c.pop("text"))


def _streamed() -> Iterator[Named]:
    yield "a stream without [DONE]", chat_stream, _text(lambda t: t.replace("data: [DONE]\n\n", ""))
    yield "an event after [DONE]", chat_stream, _text(lambda t: t + "data: {}\n\n")
    yield "a stream that is cut", chat_stream, _text(lambda t: t[:-3])
    yield "lines that end with one newline", chat_stream, _text(lambda t: t.replace("\n\n", "\n"))
    yield "a stream as JSON", chat_stream, _head(content_type="application/json")
    yield "the end before the last word", chat_stream, _events(_swap_last)
    yield "no role", chat_stream, _events(lambda e: e[0]["choices"][0]["delta"].pop("role"))
    yield (
        "a role in each event",
        chat_stream,
        _events(lambda e: e[1]["choices"][0]["delta"].update(role="assistant")),
    )
    yield "no end", chat_stream, _events(lambda e: e.pop())
    yield "two ends", chat_stream, _events(lambda e: e.append(e[-1]))
    yield "a changing id", chat_stream, _events(lambda e: e[1].update(id="chatcmpl-other"))
    yield "the object of a whole answer", chat_stream, _events(_all("object", "chat.completion"))
    yield "usage nobody asked for", chat_stream, _events(_all("usage", None))
    yield "usage in every event", chat_stream_usage, _events(lambda e: e[0].update(usage=e[-1]["usage"]))
    yield "no usage", chat_stream_usage, _events(lambda e: e.pop())
    yield "a lost piece", chat_stream_equals_complete, _events(_drop_text)
    yield (
        "lost log probabilities",
        chat_stream_equals_complete_with_everything,
        _events(lambda e: [c.update(logprobs=None) for event in e for c in event["choices"]]),
    )
    yield "a lost piece of a completion", completion_stream_equals_complete, _events(_drop_text)


def _errors() -> Iterator[Named]:
    yield "FastAPI's 422", bad_value, _head(422)
    yield "200 for an error", bad_value, _head(200)
    yield "an error without param", bad_value, _error(lambda e: e.update(param=None))
    yield "an error without code", bad_value, _error(lambda e: e.pop("code"))
    yield "an error that says nothing", bad_value, _error(lambda e: e.update(message=" "))
    yield "an error of another type", bad_value, _error(lambda e: e.update(type="server_error"))
    yield "no envelope", bad_value, _json(lambda a: a.update(detail=a.pop("error")))
    yield "an error as text", bad_value, _head(content_type="text/plain")
    yield "500 for an unknown model", unknown_model, _head(500)
    yield "another code for an unknown model", unknown_model, _error(lambda e: e.update(code="not_found"))
    yield "a list of models without object", models, _json(lambda a: a.pop("object"))


MUTANTS = tuple(
    Mutant(*each)
    for each in (
        *_complete(),
        *_requested(),
        *_transport(),
        *_completed(),
        *_streamed(),
        *_errors(),
        *response_mutants(),
    )
)
