"""Validation whose work is bounded, whatever is validated.

Pydantic goes on after an error and reports all of them, a million for a million wrong items. Only the first
is ever told, so here it stops early.
"""

from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MAX_KEYS: Final = 256
"""Keys of an object whose keys are known; several times as many as any of them has."""

MAX_KEY_LENGTH: Final = 1024
"""Characters of a key of such an object: an error would repeat it."""
_ARRAYS: Final = ("list", "tuple", "set", "frozenset")


def _bounded(schema: Any) -> Any:
    """The schema, or a part of one, with bounds on all that it holds."""
    if isinstance(schema, list):
        return [_bounded(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")  # text in a schema; in a map of fields it is the field of that name, if any
    kept = "metadata" if isinstance(kind, str) else None
    bounded = {name: part if name == kept else _bounded(part) for name, part in schema.items()}
    if kind in _ARRAYS:
        bounded["fail_fast"] = True
    if kind in (*_ARRAYS, "dict") and bounded.get("max_length") is not None:
        check = _at_most(bounded["max_length"])
        return core_schema.no_info_before_validator_function(check, bounded)
    return bounded


def _at_most(limit: int) -> Callable[[Any], Any]:
    """Counts the items before they are looked at; pydantic by itself counts them as they pass, or later."""

    def check(value: Any) -> Any:
        if isinstance(value, list | tuple | dict) and len(value) > limit:
            told = {"count": f"{len(value):,}", "limit": f"{limit:,}", "max_length": limit}
            raise PydanticCustomError("too_long", "has {count} items; {limit} are allowed", told)
        return value

    return check


class Bounds:
    """Marks an annotation whose values are bounded as the fields of ``Bounded`` are."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        bounded: CoreSchema = _bounded(handler(source))
        return bounded


class Bounded(BaseModel):
    """Stops at the first wrong item of an array, and before an array or object that has too many items."""

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_KEYS:
            counts = {"count": f"{len(value):,}", "limit": f"{MAX_KEYS:,}"}
            raise PydanticCustomError("too_many_keys", "has {count} keys; {limit} are allowed", counts)
        if isinstance(value, dict) and (longest := max(map(len, value), default=0)) > MAX_KEY_LENGTH:
            counts = {"count": f"{longest:,}", "limit": f"{MAX_KEY_LENGTH:,}"}
            raise PydanticCustomError(
                "long_key", "has a key of {count} characters; {limit} are allowed", counts
            )
        return value

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        bounded: CoreSchema = _bounded(handler(source))
        return bounded
