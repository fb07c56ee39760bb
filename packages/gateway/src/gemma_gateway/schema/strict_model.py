"""Base classes and annotations of the request schemas."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    GetCoreSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from gemma_wire.bounded import Bounded


class EmptyIsValue:
    """Marks a parameter for which an empty object is a value, such as the JSON schema of anything."""


class StrictModel(Bounded):
    """No unknown fields, no conversions: ``"5"`` is not 5 and ``true`` is not 1.

    No-op values are the exception: ``null``, ``false``, ``[]`` and ``{}`` are accepted for every optional
    parameter and for every unknown one, and are treated as absent. Where such a value is meaningful for a
    parameter, it is kept. An integer may be written as ``5.0``, as in JSON schema.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = _traits(cls)
        return {
            name: _as_integers(value) if traits.holds_integers else value
            for name, value in data.items()
            if (traits := known.get(name, _UNKNOWN)).required or not is_noop(value) or traits.accepts(value)
        }


@dataclass(frozen=True)
class _Traits:
    """What ``StrictModel`` needs to know about a field before validation."""

    required: bool = False
    accepts_false: bool = False
    accepts_empty: bool = False
    holds_integers: bool = False

    def accepts(self, value: object) -> bool:
        """Whether a no-op value is meaningful for this field."""
        return self.accepts_false if value is False else self.accepts_empty and value is not None


_UNKNOWN: Final = _Traits()


@cache
def _traits(model: type[BaseModel]) -> dict[str, _Traits]:
    """The traits of each field, by the name that it has in JSON."""
    return {
        field.alias or name: _Traits(
            required=field.is_required(),
            accepts_false=_accepts_false(field.annotation, field.metadata),
            accepts_empty=any(isinstance(mark, EmptyIsValue) for mark in field.metadata),
            holds_integers=int in _leaves(field.annotation),
        )
        for name, field in model.model_fields.items()
    }


def _accepts_false(annotation: Any, marks: list[Any]) -> bool:
    """Whether false is a meaningful value. For an unsupported parameter: whether its default is true."""
    for mark in marks:
        if isinstance(mark, Unsupported):
            return True in [value for value in mark.noop_values if isinstance(value, bool)]
    return not {bool, False}.isdisjoint(_leaves(annotation))


def _leaves(annotation: Any) -> list[Any]:
    """The types and boolean literals in an annotation, without the fields of models."""
    if isinstance(annotation, type) or annotation is None:
        return [annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [value for value in inner if isinstance(value, bool)]
    parts = inner[:1] if origin is Annotated else inner
    return [leaf for part in parts for leaf in _leaves(part)]


def _as_integers(value: object) -> object:
    """Converts floats without a fraction to integers, in arrays too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list) and any(isinstance(item, float | list) for item in value):
        return [_as_integers(item) for item in value]
    return value


def is_noop(value: object) -> bool:
    """Whether a value is null, false, or an empty array or object."""
    return value is None or value is False or (isinstance(value, list | dict) and not value)


@dataclass(frozen=True)
class Ignored:
    """Marks a parameter that is accepted without effect, with the reason why that is harmless."""

    reason: str


class Unsupported:
    """Marks a parameter that is not supported.

    Args:
        noop_values: values that are accepted because they change nothing, besides those that always are. If
            ``True`` is one of them, ``False`` is refused.
        hint: what a client could do instead; a clause at the end of the error message.
    """

    def __init__(self, *noop_values: object, hint: str = "") -> None:
        self.noop_values = noop_values
        self.hint = hint

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: object) -> object:
        if any(value == other and _same_kind(value, other) for other in self.noop_values):
            return value
        raise PydanticCustomError(
            "unsupported", "not supported", {"noop_values": self.noop_values, "hint": self.hint}
        )


def _same_kind(value: object, other: object) -> bool:
    """``True == 1`` in Python, but not in JSON."""
    return isinstance(value, bool) == isinstance(other, bool)


def tagged_by(key: str, *tags: str) -> Discriminator:
    """Selects a union member by ``value[key]``; each member has ``Tag("<its value>")``.

    The angle brackets distinguish a tag from a field name in pydantic's error locations. The error type is
    ``unknown_<key>``, and its message is the list of tags.
    """

    def tag(value: Any) -> str | None:
        return tag_of(value.get(key)) if isinstance(value, dict) else None

    return Discriminator(tag, f"unknown_{key}", ", ".join(map(repr, tags)))


def tag_of(value: object) -> str:
    """The tag for a value, which may have any type and size."""
    return f"<{value}>" if isinstance(value, str) and len(value) <= 100 else f"<{type(value).__name__}>"


def text_or_parts() -> Discriminator:
    """Selects ``Tag("<string>")`` or ``Tag("<array>")``; other values have the error type ``neither``."""
    return one_of({str: "<string>", list: "<array>"}, "a string or an array of objects")


def one_of(tags: dict[type, str], expected: str) -> Discriminator:
    """Selects a union member by JSON type: Python type → tag of the member."""

    def tag(value: Any) -> str | None:
        return tags.get(type(value))

    return Discriminator(tag, "neither", expected)


def conflict(param: str, reason: str, code: str = "invalid_parameter_combination") -> PydanticCustomError:
    """An error of a validator that compares several fields.

    Args:
        param: the path of the wrong parameter inside the validated object; empty for the object itself.
        reason: a clause that follows the complete path.
        code: the error's ``code``.
    """
    return PydanticCustomError("conflict", "{reason}", {"param": param, "reason": reason, "code": code})


def null_as_text() -> BeforeValidator:
    """Treats null and an empty list as the empty text."""
    return BeforeValidator(lambda value: "" if value is None or value == [] else value)
