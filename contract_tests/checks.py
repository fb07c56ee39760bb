"""Checks of every response: status, headers, schema, and whether it matches its request."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from overlay import Json
from response_streams import response_problems, response_stream_problems
from spec import contract, schema_problems
from streams import stream_problems, wanted

INVALID = "invalid_request_error"
ERROR_TYPES = {
    400: {INVALID},
    401: {INVALID, "authentication_error"},
    404: {INVALID, "not_found_error"},
    405: {INVALID},
    413: {INVALID},
    415: {INVALID},
}
CODES: dict[int, set[str]] = {
    401: {"invalid_api_key"},
    404: {"model_not_found", "unknown_url"},
    429: {"rate_limit_exceeded"},
}


@dataclass(frozen=True)
class HttpExchange:
    """A request and its response.

    Args:
        path: of the operation, as the document writes it (``/v1/models/{model}``).
        request: the JSON that was sent.
        headers: names in lower case.
    """

    method: str
    path: str
    request: Json
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as it came."""
        return self.body.decode()

    @property
    def json(self) -> Json:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def streamed(self) -> bool:
        """Whether a stream was requested."""
        return isinstance(self.request, dict) and self.request.get("stream") is True


def problems(exchange: HttpExchange) -> list[str]:
    """What is wrong with a response, one sentence each; empty if nothing is."""
    responses = contract()["paths"][exchange.path][exchange.method.lower()]["responses"]
    response = responses.get(str(exchange.status))
    if response is None:
        return [f"the status {exchange.status} is not documented: {exchange.text[:300]}"]
    found = _header_problems(exchange, response)
    if exchange.status >= 400:
        return found + error_problems(exchange)
    if exchange.streamed:
        found += _typed(exchange, "text/event-stream")
        if exchange.path.endswith("/responses"):
            return found + response_stream_problems(exchange.text, exchange.request)
        return found + stream_problems(exchange.path, exchange.text, exchange.request)
    return found + _typed(exchange, "application/json") + _complete_problems(exchange, response)


def error_problems(exchange: HttpExchange) -> list[str]:
    """What is wrong with an error response."""
    found = _typed(exchange, "application/json")
    try:
        answer = exchange.json
    except ValueError as error:
        return [*found, f"the error is not JSON: {error}"]
    found += schema_problems("ErrorResponse", answer)
    if found:
        return found
    told = answer["error"]
    if not told["message"].strip():
        found.append("the error has no message")
    if told["type"] not in ERROR_TYPES.get(exchange.status, {told["type"]}):
        found.append(f"{told['type']} is not a type of status {exchange.status}")
    if told["code"] not in CODES.get(exchange.status, {told["code"]}):
        found.append(f"{told['code']} is not a code of status {exchange.status}")
    if exchange.status == 429 and not exchange.headers.get("retry-after", "").isdecimal():
        found.append("429 without Retry-After")
    return found


def _header_problems(exchange: HttpExchange, response: Json) -> list[str]:
    return [
        f"the header {name} is missing"
        for name, header in response.get("headers", {}).items()
        if header.get("required") and not exchange.headers.get(name)
    ]


def _typed(exchange: HttpExchange, expected: str) -> list[str]:
    got = exchange.headers.get("content-type", "")
    return [] if got.partition(";")[0] == expected else [f"the content type is {got!r}, not {expected}"]


def _complete_problems(exchange: HttpExchange, response: Json) -> list[str]:
    try:
        answer = exchange.json
    except ValueError as error:
        return [f"the response is not JSON: {error}"]
    schema = response["content"]["application/json"]["schema"]
    found = schema_problems(schema["$ref"].rpartition("/")[2], answer)
    if not found and "choices" in answer:
        found = [*_usage_problems(exchange, answer), *_choice_problems(exchange, answer)]
    if not found and answer.get("object") == "response":
        found = response_problems(answer, exchange.request)
    return found


def _usage_problems(exchange: HttpExchange, answer: Json) -> list[str]:
    usage = answer["usage"]
    found = []
    if usage["total_tokens"] != usage["prompt_tokens"] + usage["completion_tokens"]:
        found.append("total_tokens is not the sum")
    limit = _limit(exchange.request)
    if limit and usage["completion_tokens"] > limit * len(answer["choices"]) * (
        exchange.request.get("best_of") or 1
    ):
        found.append(f"{usage['completion_tokens']} tokens, at most {limit} were requested")
    return found


def _limit(request: Json) -> int | None:
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    return limit if isinstance(limit, int) and limit >= 0 else None  # -1: as many as fit the context


def _choice_problems(exchange: HttpExchange, answer: Json) -> list[str]:
    found = []
    choices, count = answer["choices"], wanted(exchange.path, exchange.request)
    if count is not None and [choice["index"] for choice in choices] != list(range(count)):
        found.append(f"the choices are {[choice['index'] for choice in choices]}, but {count} were requested")
    for choice in choices:
        found += _reason_problems(choice)
        if _requests_logprobs(exchange.request) != bool(choice.get("logprobs")):
            found.append("log probabilities must be present exactly if they are requested")
    return found


def _reason_problems(choice: dict[str, Any]) -> list[str]:
    calls = bool(choice.get("message", {}).get("tool_calls"))
    if choice["finish_reason"] == "tool_calls" and not calls:
        return ["finish_reason is tool_calls, but there are none"]
    if calls and choice["finish_reason"] not in ("tool_calls", "length", "stop"):
        return [f"there are tool calls, and finish_reason is {choice['finish_reason']}"]
    return []


def _requests_logprobs(request: Json) -> bool:
    asked = request.get("logprobs")
    return asked is True or (isinstance(asked, int | float) and asked is not False)
