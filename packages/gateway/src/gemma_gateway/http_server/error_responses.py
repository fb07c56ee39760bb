"""Responses that the HTTP server sends without the application, or in place of it."""

import http
import json
import uuid
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_gateway.auth import HEALTH
from gemma_gateway.errors import ApiError, ServiceUnavailable

_MONITORING_PATHS: Final = (*HEALTH, "/metrics")


def error_response(error: ApiError, default_headers: list[tuple[bytes, bytes]], path: str = "") -> bytes:
    """The complete response in place of the application's; it ends the connection.

    Args:
        error: what is wrong.
        default_headers: of the server.
        path: of the request, if it is known.
    """
    request_id = _request_id()
    body = json.dumps(error.body(path, request_id)).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "x-request-id": request_id,
        **error.headers,
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {error.status} {http.HTTPStatus(error.status).phrase}".encode()]
    lines += [b"%b: %b" % header for header in default_headers]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", body])


def overloaded(limit: int) -> ServiceUnavailable:
    """The error for a connection over the limit."""
    sentence = f"The server has reached its limit of {limit} connections with requests in progress."
    headers = {"Connection": "close", "x-request-id": _request_id()}
    return ServiceUnavailable(sentence, code="too_many_connections", headers=headers)


def only_health(app: ASGIApp, limit: int) -> ASGIApp:
    """The application for health checks and metrics; 503 for all other paths."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = app if scope["path"] in _MONITORING_PATHS else overloaded(limit).response()
        await chosen(scope, receive, send)

    return respond


def _request_id() -> str:
    return f"req_{uuid.uuid4().hex}"
