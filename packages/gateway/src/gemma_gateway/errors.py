"""Every error that a client can receive, and its JSON form: OpenAI's, or Anthropic's on that API's paths.

    ApiError
    ├── BadRequest            400  the request is wrong; ``param`` names the parameter
    │   └── MalformedRequest       it is not valid HTTP
    ├── Unauthorized          401  no API key, or an incorrect one
    ├── Forbidden             403  the Host header is not a name of this server
    ├── NotFound              404  no such URL
    │   └── ModelNotFound          no such model
    ├── MethodNotAllowed      405
    ├── RequestTimeout        408  the request or its body took too long
    ├── BodyTooLarge          413
    ├── UnsupportedMediaType  415  the body's compression is not supported
    ├── TooManyRequests       429  too many requests of a key, or the model's queue is full
    ├── InternalError         500  a bug or failure of the server
    └── ServiceUnavailable    503  the model is unavailable, or the gateway shuts down

``type`` and ``code`` are OpenAI's strings, so that its SDKs raise their own exceptions. Anthropic's types
follow from the status.
"""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

import gemma_wire as wire

log = logging.getLogger(__name__)
_ANTHROPIC_PATH: Final = "/v1/messages"
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
"""Status → ``type``; ``invalid_request_error`` for all others."""


class ApiError(Exception):
    """Base of every error that a client receives.

    Args:
        message: one sentence.
        param: the request parameter that is wrong, such as ``messages[0].content``.
        code: for programs; the class has a default.
        headers: in addition to those of the class.
    """

    status: ClassVar[int]
    type: ClassVar[str] = "invalid_request_error"
    default_code: ClassVar[str | None] = None
    retry_after: ClassVar[int | None] = None
    """Seconds, the Retry-After header."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        retry = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        self.headers = {**retry, **(headers or {})}

    def body(self, path: str = "", request_id: str | None = None) -> dict[str, Any]:
        """The JSON body.

        Args:
            path: of the request, which decides the form; empty: OpenAI's form.
            request_id: for Anthropic's form.
        """
        if is_anthropic(path):
            return self._anthropic_body(request_id)
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The HTTP response."""
        return _ErrorResponse(self)

    def _anthropic_body(self, request_id: str | None) -> dict[str, Any]:
        """There is no ``param``, so the message begins with it unless it contains it already."""
        named = self.param is None or self.param in self.message
        message = self.message if named else f"{self.param}: {self.message}"
        kind = _ANTHROPIC_TYPES.get(self.status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def is_anthropic(path: str) -> bool:
    """Whether a path belongs to Anthropic's API."""
    return path == _ANTHROPIC_PATH or path.startswith(f"{_ANTHROPIC_PATH}/")


class _ErrorResponse(JSONResponse):
    """Has the form of the request's API, and stores its code in ``state.error_code`` for log and metrics."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.body(), error.status, headers=error.headers)
        self.error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note_error(scope, self.error.code)
        if is_anthropic(scope["path"]):
            request_id = scope["state"].get("request_id") or self.headers.get("x-request-id")
            self.body = self.render(self.error.body(scope["path"], request_id))
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def note_error(scope: Scope, code: str | None) -> None:
    """Stores the error code of a request for the request log and the metrics."""
    scope.setdefault("state", {})["error_code"] = code or "invalid_request"


class BadRequest(ApiError):
    """The request is wrong."""

    status = 400


class MalformedRequest(BadRequest):
    """The data is not valid or not unambiguous HTTP; the connection is closed."""

    default_code = "malformed_http"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Connection": "close"})


class Unauthorized(ApiError):
    """No API key, or an incorrect one."""

    status = 401
    default_code = "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(ApiError):
    """The Host header is not a name of this server."""

    status = 403
    type = "request_forbidden"
    default_code = "host_not_allowed"


class NotFound(ApiError):
    """No such URL."""

    status = 404
    default_code = "unknown_url"


class ModelNotFound(NotFound):
    """No such model."""

    default_code = "model_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"The model '{name[:200]}' does not exist.", param="model")


class MethodNotAllowed(ApiError):
    """The URL exists, but not for this method."""

    status = 405
    default_code = "method_not_supported"


class RequestTimeout(ApiError):
    """The request or its body took too long.

    OpenAI's clients retry a 408 at once and would time out again; ``x-should-retry`` prevents it.
    """

    status = 408
    type = "timeout"
    default_code = "request_timeout"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false", "Connection": "close"})


class BodyTooLarge(ApiError):
    """The request body is over the limit."""

    status = 413
    default_code = "request_too_large"


class UnsupportedMediaType(ApiError):
    """The compression of the request body is not supported."""

    status = 415
    default_code = "unsupported_content_encoding"


class TooManyRequests(ApiError):
    """Too many requests of one API key, or the model's queue is full."""

    status = 429
    type = "requests"
    default_code = "rate_limit_exceeded"
    retry_after = 1


class InternalError(ApiError):
    """A bug or failure of the server. The details are in the log, not in the response."""

    status = 500
    type = "server_error"
    default_code = "internal_error"

    def __init__(self, message: str = "The server had an error while processing this request.") -> None:
        super().__init__(message)


class ServiceUnavailable(ApiError):
    """The model is unavailable, or the gateway shuts down."""

    status = 503
    type = "server_error"
    default_code = "service_unavailable"
    retry_after = 5


def from_wire(error: wire.WireError, param: str | None = None) -> ApiError:
    """The API error for an error of the model server.

    Args:
        error: as it crossed Triton.
        param: the parameter of the OpenAI request.
    """
    match error:
        case wire.InvalidRequest():
            return BadRequest(error.message, param=param, code=error.code)
        case wire.Overloaded():
            return TooManyRequests(error.message)
        case wire.Unavailable():
            return ServiceUnavailable(error.message)
        case _:
            log.error("the model failed: %s", error.message)
            return InternalError()
