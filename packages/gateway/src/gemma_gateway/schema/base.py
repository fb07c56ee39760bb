"""The parts that every request schema is made of."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Disposition = Literal["honoured", "no effect", "refused"]
"""What becomes of a parameter. Nothing is dropped in silence: every parameter has exactly one."""

NO_EFFECT: Final = "no effect"
"""Marks a parameter that is accepted without effect, which its specification allows."""


class Strict(BaseModel):
    """No unknown fields, no conversions: ``"5"`` is not 5 and ``true`` is not 1."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Only:
    """Marks a parameter that is not supported, and lists the values that ask for nothing."""

    def __init__(self, *neutral: object) -> None:
        self.neutral = neutral

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: object) -> object:
        if any(value == other and _same_kind(value, other) for other in self.neutral):
            return value
        raise PydanticCustomError("unsupported", "not supported", {"neutral": self.neutral})


def _same_kind(value: object, other: object) -> bool:
    """``True == 1`` in Python, but not in JSON."""
    return isinstance(value, bool) == isinstance(other, bool)


def tagged_by(key: str, *tags: str) -> Discriminator:
    """Chooses a union's member by ``value[key]``; each member carries ``Tag("<its value>")``.

    The angle brackets tell a tag from a field's name in pydantic's error locations. The error is of type
    ``unknown_<key>``, and its message is the list of tags.
    """

    def tag(value: Any) -> str | None:
        return f"<{value.get(key)}>" if isinstance(value, dict) else None

    return Discriminator(tag, f"unknown_{key}", ", ".join(map(repr, tags)))


def text_or_parts() -> Discriminator:
    """Chooses between ``Tag("<string>")`` and ``Tag("<array>")``; the error for the rest is ``neither``."""

    def tag(value: Any) -> str | None:
        if isinstance(value, str):
            return "<string>"
        return "<array>" if isinstance(value, list) else None

    return Discriminator(tag, "neither", "a string or an array of objects")


def dispositions(schema: type[BaseModel]) -> dict[str, Disposition]:
    """What becomes of each parameter of a request schema."""
    return {name: _disposition(field.metadata) for name, field in schema.model_fields.items()}


def _disposition(metadata: list[Any]) -> Disposition:
    if NO_EFFECT in metadata:
        return "no effect"
    return "refused" if any(isinstance(mark, Only) for mark in metadata) else "honoured"
