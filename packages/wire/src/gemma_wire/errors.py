"""The errors that cross Triton.

A decoupled Triton stream has one line of text for an error and no status code. So the line contains
everything: ``field: message [code]``, with ``request`` for no particular field. It is parsed without loss.

    WireError
    ├── InvalidRequest             the request is wrong; ``field`` names the field
    │   └── ContextLengthExceeded
    ├── Overloaded                 the queue is full; try again later
    ├── Unavailable                the model cannot respond now (loading, restarting, shutting down)
    └── EngineFailure              the engine failed
"""

import re
from typing import ClassVar

from pydantic import ValidationError

_LINE = re.compile(r"(?P<field>[\w.\[\]]+): (?P<message>.*) \[(?P<code>[a-z_]+)\]", re.DOTALL)
_NO_FIELD = "request"
_MESSAGES = {"extra_forbidden": "is not a known field", "missing": "is needed"}


class WireError(Exception):
    """Base of every error that crosses Triton.

    Args:
        message: one sentence.
        field: the request field that is wrong, such as ``images[0]``; empty if there is none.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def to_line(self) -> str:
        """The one line of text that Triton carries."""
        return f"{self.field or _NO_FIELD}: {self.message} [{self.code}]"

    @staticmethod
    def from_line(line: str) -> "WireError":
        """The error that ``to_line`` wrote; any other text becomes an ``EngineFailure``."""
        match = _LINE.fullmatch(line)
        kind = _BY_CODE.get(match["code"]) if match else None
        if match is None or kind is None:
            return EngineFailure(line)
        return kind(match["message"], "" if match["field"] == _NO_FIELD else match["field"])


class InvalidRequest(WireError):
    """The request is wrong: ``field`` names the field, ``message`` the reason."""

    code = "invalid_value"

    @staticmethod
    def from_validation(error: ValidationError, prefix: str = "") -> "InvalidRequest":
        """The first error that pydantic reports, with the name of the field.

        Args:
            error: what ``model_validate`` raised.
            prefix: the path of the validated object inside the request.
        """
        first = error.errors(include_url=False, include_context=False)[0]
        path = field_path((prefix, *first["loc"]) if prefix else first["loc"])
        sentence = _MESSAGES.get(first["type"], first["msg"].removeprefix("Value error, "))
        return InvalidRequest(sentence[0].lower() + sentence[1:], path)


class ContextLengthExceeded(InvalidRequest):
    """The prompt does not fit the model's context."""

    code = "context_length_exceeded"


class Overloaded(WireError):
    """The queue is full."""

    code = "overloaded"


class Unavailable(WireError):
    """The model cannot respond now."""

    code = "unavailable"


class EngineFailure(WireError):
    """The engine failed; the request was valid."""

    code = "internal_error"


class InvalidSetting(Exception):
    """A setting of the model, or its checkpoint, is wrong: it cannot be loaded with any number of attempts.

    Triton's log has the name of this class and the message, in which the launcher finds them.
    """


_BY_CODE = {
    kind.code: kind
    for kind in (InvalidRequest, ContextLengthExceeded, Overloaded, Unavailable, EngineFailure)
}


def field_path(loc: tuple[int | str, ...]) -> str:
    """``("messages", 0, "content")`` → ``messages[0].content``."""
    path = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path
