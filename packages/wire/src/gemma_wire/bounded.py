"""Pydantic validation with bounded work, whatever the input.

Pydantic reports all errors, a million for a million wrong items. Only the first one is ever used, so
validation stops early here.
"""

from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MAX_KEYS: Final = 256
"""Keys of an object with known fields; several times more than any schema has."""

MAX_KEY_LENGTH: Final = 1024
"""Characters of a key of such an object, since an error contains it."""
_ARRAYS: Final = ("list", "tuple", "set", "frozenset")


def _bounded(schema: Any) -> Any:
    """A core schema, or a part of one, with bounds on everything in it."""
    if isinstance(schema, list):
        return [_bounded(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")  # a string in a schema; in a map of fields it may be a field of this name
    kept = "metadata" if isinstance(kind, str) else None
    bounded = {name: part if name == kept else _bounded(part) for name, part in schema.items()}
    if kind in _ARRAYS:
        bounded["fail_fast"] = True
    if kind in (*_ARRAYS, "dict") and bounded.get("max_length") is not None:
        check = _at_most(bounded["max_length"])
        return core_schema.no_info_before_validator_function(check, bounded)
    return bounded


def _at_most(limit: int) -> Callable[[Any], Any]:
    """Counts the items before validation; pydantic counts them during validation, or after it."""

    def check(value: Any) -> Any:
        if isinstance(value, list | tuple | dict) and len(value) > limit:
            counts = {"count": f"{len(value):,}", "limit": f"{limit:,}", "max_length": limit}
            raise PydanticCustomError("too_long", "has {count} items; {limit} are allowed", counts)
        return value

    return check


class Bounds:
    """Marks an annotation whose values are bounded like the fields of ``Bounded``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        bounded: CoreSchema = _bounded(handler(source))
        return bounded


class Bounded(BaseModel):
    """Stops at the first wrong item of an array, and before it validates a too large array or object."""

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
