"""Every error a client can see, and the one envelope it comes in.

    ApiError
    ├── BadRequest            400  the request is wrong; ``param`` names the culprit
    │   └── MalformedRequest       it is not HTTP
    ├── Unauthorized          401  no API key, or a wrong one
    ├── Forbidden             403  asked under a host name that is not this server's
    ├── NotFound              404  no such URL
    │   └── ModelNotFound          no such model
    ├── MethodNotAllowed      405
    ├── RequestTimeout        408  the body came too slowly, or the answer took too long
    ├── BodyTooLarge          413
    ├── UnsupportedMediaType  415  the body is compressed in a way that is not known here
    ├── TooManyRequests       429  the key's share is used up, or the model's queue is full
    ├── InternalError         500  our fault
    └── ServiceUnavailable    503  the model cannot answer now, or the gateway is shutting down

``type`` and ``code`` are OpenAI's own strings, so that its SDKs raise their own classes.
"""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

import gemma_wire as wire

log = logging.getLogger(__name__)


class ApiError(Exception):
    """Base of every error a client sees.

    Args:
        message: one sentence for people.
        param: the request parameter it is about, such as ``messages[0].content``.
        code: a word for programs; the class has a default.
        headers: to send besides the class's own.
    """

    status: ClassVar[int]
    type: ClassVar[str] = "invalid_request_error"
    default_code: ClassVar[str | None] = None
    retry_after: ClassVar[int | None] = None
    """Seconds after which a retry makes sense."""

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

    def envelope(self) -> dict[str, Any]:
        """The JSON body."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The whole HTTP answer."""
        return _ErrorResponse(self)


class _ErrorResponse(JSONResponse):
    """Leaves its code where the layers around it find it: ``state.error_code``."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.envelope(), error.status, headers=error.headers)
        self.error_code = error.code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note_error(scope, self.error_code)
        await super().__call__(scope, receive, send)


def note_error(scope: Scope, code: str | None) -> None:
    """Tells the layers around (the log, the metrics) which error a request ended with."""
    scope.setdefault("state", {})["error_code"] = code or "invalid_request"


class BadRequest(ApiError):
    """The request is wrong."""

    status = 400


class MalformedRequest(BadRequest):
    """What arrived is not HTTP, or a form of it that has two readings; the connection ends with it."""

    default_code = "malformed_http"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Connection": "close"})


class Unauthorized(ApiError):
    """No API key, or a wrong one."""

    status = 401
    default_code = "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(ApiError):
    """Asked under a host name that is not this server's."""

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
    """The body came too slowly, or the answer took too long.

    OpenAI's clients would ask again at once, and wait as long for the same end: they are told not to.
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
    """The request body is compressed in a way that is not known here."""

    status = 415
    default_code = "unsupported_content_encoding"


class TooManyRequests(ApiError):
    """The key's share is used up, or the model's queue is full."""

    status = 429
    type = "requests"
    default_code = "rate_limit_exceeded"
    retry_after = 1


class InternalError(ApiError):
    """Our fault; what exactly is in the log, not in the answer."""

    status = 500
    type = "server_error"
    default_code = "internal_error"

    def __init__(self, message: str = "The server failed while it worked on this request.") -> None:
        super().__init__(message)


class ServiceUnavailable(ApiError):
    """The model cannot answer now, or the gateway is shutting down."""

    status = 503
    type = "server_error"
    default_code = "service_unavailable"
    retry_after = 5


def from_wire(error: wire.WireError, param: str | None = None) -> ApiError:
    """What the model side said, as a client may see it.

    Args:
        error: as it crossed Triton.
        param: the culprit's name in the OpenAI request.
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
