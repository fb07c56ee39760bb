"""The parts that every request schema is made of."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Discriminator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


class Strict(BaseModel):
    """No unknown fields, no conversions: ``"5"`` is not 5 and ``true`` is not 1."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class NoEffect:
    """Marks a parameter that is accepted without effect, and says why that is harmless."""

    why: str


class Only:
    """Marks a parameter that is not supported.

    Args:
        neutral: the values that ask for nothing, which are accepted.
        hint: what a client could do instead; a clause that ends the sentence of the refusal.
    """

    def __init__(self, *neutral: object, hint: str = "") -> None:
        self.neutral = neutral
        self.hint = hint

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: object) -> object:
        if any(value == other and _same_kind(value, other) for other in self.neutral):
            return value
        raise PydanticCustomError(
            "unsupported", "not supported", {"neutral": self.neutral, "hint": self.hint}
        )


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
    return one_of({str: "<string>", list: "<array>"}, "a string or an array of objects")


def one_of(tags: dict[type, str], expected: str) -> Discriminator:
    """Chooses a union's member by the kind of JSON value: its Python type → the member's tag."""

    def tag(value: Any) -> str | None:
        return tags.get(type(value))

    return Discriminator(tag, "neither", expected)


def clash(param: str, reason: str, code: str = "invalid_parameter_combination") -> PydanticCustomError:
    """The error of a validator that looks at several fields.

    Args:
        param: the culprit's path inside the validated object; empty for the object itself.
        reason: a clause that follows the culprit's whole path.
        code: a word for programs.
    """
    return PydanticCustomError("clash", "{reason}", {"param": param, "reason": reason, "code": code})
