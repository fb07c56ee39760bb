"""The parts that every request schema is made of."""

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
    """Marks a parameter whose empty object is a value, such as the JSON schema that everything fits."""


class Strict(Bounded):
    """No unknown fields, no conversions: ``"5"`` is not 5 and ``true`` is not 1.

    Except for what asks for nothing: ``null``, ``false``, ``[]`` and ``{}`` are accepted for every parameter
    that may be left out, and for every unknown one, and are as if they were not there. Where such a value is
    one that the parameter can have, it stays. An integer may be written as ``5.0``, as in JSON schema.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = _traits(cls)
        return {
            name: _whole(value) if traits.holds_integers else value
            for name, value in data.items()
            if (traits := known.get(name, _UNKNOWN)).required
            or not asks_for_nothing(value)
            or traits.takes(value)
        }


@dataclass(frozen=True)
class _Traits:
    """What ``Strict`` has to know about a field before it is validated."""

    required: bool = False
    takes_false: bool = False
    takes_empty: bool = False
    holds_integers: bool = False

    def takes(self, value: object) -> bool:
        """Whether a value that seems to ask for nothing is a value of this field."""
        return self.takes_false if value is False else self.takes_empty and value is not None


_UNKNOWN: Final = _Traits()


@cache
def _traits(model: type[BaseModel]) -> dict[str, _Traits]:
    """The traits of each field, by the name that it has in JSON."""
    return {
        field.alias or name: _Traits(
            required=field.is_required(),
            takes_false=_takes_false(field.annotation, field.metadata),
            takes_empty=any(isinstance(mark, EmptyIsValue) for mark in field.metadata),
            holds_integers=int in _leaves(field.annotation),
        )
        for name, field in model.model_fields.items()
    }


def _takes_false(annotation: Any, marks: list[Any]) -> bool:
    """Whether false is a value of a field; of a refused one, whether its default is true."""
    for mark in marks:
        if isinstance(mark, Only):
            return True in [value for value in mark.neutral if isinstance(value, bool)]
    return not {bool, False}.isdisjoint(_leaves(annotation))


def _leaves(annotation: Any) -> list[Any]:
    """The types and boolean literals that an annotation is made of; fields of models are not among them."""
    if isinstance(annotation, type) or annotation is None:
        return [annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [value for value in inner if isinstance(value, bool)]
    parts = inner[:1] if origin is Annotated else inner
    return [leaf for part in parts for leaf in _leaves(part)]


def _whole(value: object) -> object:
    """Numbers without a fraction as integers, in arrays too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list) and any(isinstance(item, float | list) for item in value):
        return [_whole(item) for item in value]
    return value


def asks_for_nothing(value: object) -> bool:
    """Whether a value is null, false, or an empty array or object."""
    return value is None or value is False or (isinstance(value, list | dict) and not value)


@dataclass(frozen=True)
class NoEffect:
    """Marks a parameter that is accepted without effect, and says why that is harmless."""

    why: str


class Only:
    """Marks a parameter that is not supported.

    Args:
        neutral: the values that ask for nothing, besides those that always do. When ``True`` is among them,
            ``False`` asks for something.
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
        return tag_of(value.get(key)) if isinstance(value, dict) else None

    return Discriminator(tag, f"unknown_{key}", ", ".join(map(repr, tags)))


def tag_of(value: object) -> str:
    """The tag that a value names; a client's value may be anything, of any size."""
    return f"<{value}>" if isinstance(value, str) and len(value) <= 100 else f"<{type(value).__name__}>"


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


def null_as_text() -> BeforeValidator:
    """Of a required text or list of parts: nothing is the empty text."""
    return BeforeValidator(lambda value: "" if value is None or value == [] else value)
