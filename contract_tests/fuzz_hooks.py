"""Hooks of schemathesis, which loads this module by ``SCHEMATHESIS_HOOKS``."""

import json
import os
import re
import zlib
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

from checks import HttpExchange, error_problems, problems
from deviations import UNSAID
from request_repair import repaired, shortened

AnyCase: TypeAlias = "Case[Any]"
_COUNT = os.environ.get("CONTRACT_COUNT")


@schemathesis.hook
def before_call(context: HookContext, case: AnyCase, kwargs: dict[str, Any]) -> None:
    """Keep responses short, and remove contradictions from most requests, which would be refused otherwise.

    schemathesis looks again at what it is about to send, whether it fits the schema or not.
    """
    if not isinstance(case.body, dict):
        return
    case.body = shortened(case.body, case.operation.path)
    if zlib.crc32(json.dumps(case.body, sort_keys=True, default=str).encode()) % 3:
        case.body = repaired(case.body)


@schemathesis.hook
def after_call(context: HookContext, case: AnyCase, response: Response) -> None:
    """Count the requests, for the long profile."""
    if _COUNT:
        with Path(_COUNT).open("a", encoding="ascii") as file:
            file.write(f"{response.status_code}\n")


@schemathesis.check
def contract(ctx: CheckContext, response: Response, case: AnyCase) -> None:
    """Our checks: error format, stream events, token counts, finish reasons."""
    exchange = _exchange(response, case)
    if exchange.status in (404, 405) and _elsewhere(response, case):
        found = error_problems(exchange)
    else:
        found = problems(exchange)
    if _is_positive(case) and exchange.status == 400:
        found += _refusal_problems(exchange)
    assert not found, "\n".join(found)


def _exchange(response: Response, case: AnyCase) -> HttpExchange:
    headers = {name.lower(): values[0] for name, values in response.headers.items()}
    method = str(response.request.method or "").lower()
    request = _sent(response)
    return HttpExchange(method, case.operation.path, request, response.status_code, headers, response.content)


def _sent(response: Response) -> Any:
    body = response.request.body
    try:
        return json.loads(body) if isinstance(body, str | bytes) and body else None
    except ValueError:
        return None


def _elsewhere(response: Response, case: AnyCase) -> bool:
    """Whether the generated path or method belongs to another operation."""
    method = str(response.request.method or "").lower()
    path = urlsplit(str(response.request.url)).path
    return method != case.operation.method or "{" in case.operation.path or path != case.operation.path


def _is_positive(case: AnyCase) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


def _refusal_problems(exchange: HttpExchange) -> list[str]:
    """Data that is valid for the schemas may only be refused for listed reasons, naming the parameter."""
    param = exchange.json["error"]["param"] or ""
    if any(re.fullmatch(unsaid, param) for unsaid in UNSAID):
        return []
    return [f"valid data is refused, because of {param!r}: {exchange.text[:300]}"]
