"""Validates a finished output against a client's schema, with ``jsonschema``; runs in the sandbox.

References are never fetched. Character classes of patterns are those of ECMA 262. ``multipleOf`` is computed
with decimal numbers. Keywords of older drafts are validated in every dialect.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import UndefinedTypeCheck, UnknownType, best_match
from jsonschema.validators import extend, validator_for
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable

Errors = Iterator[ValidationError]


def is_valid(schema: Any, text: str) -> bool:
    """Whether a JSON text is valid for a schema. Keywords that are in no draft are ignored.

    Args:
        schema: the client's schema; if it cannot be evaluated, no instance is valid.
        text: JSON text of the instance.
    """
    try:
        instance = json.loads(text)
    except (ValueError, RecursionError):
        return False
    standard = validator_for(schema, default=Draft202012Validator)
    own_checks = {
        keyword: check
        for keyword, check in _CHECKS.items()
        if keyword in standard.VALIDATORS or keyword in _OLD_KEYWORDS
    }
    validator = extend(standard, own_checks)(schema, registry=REGISTRY)  # type: ignore[no-untyped-call]
    try:
        return best_match(validator.iter_errors(instance)) is None
    except (
        Unresolvable,
        UnknownType,
        UndefinedTypeCheck,
        RecursionError,
        re.error,
        TypeError,
        AttributeError,
    ):
        return False


def _pattern(_: Any, pattern: Any, instance: Any, __: Any) -> Errors:
    if isinstance(instance, str) and isinstance(pattern, str) and not re.search(pattern, instance, re.ASCII):
        yield ValidationError(f"does not match {pattern!r}")


def _multiple_of(_: Any, multiple: Any, instance: Any, __: Any) -> Errors:
    if isinstance(instance, bool) or not isinstance(instance, int | float):
        return
    try:
        remainder = Decimal(repr(instance)) % Decimal(repr(multiple))
    except InvalidOperation:
        return
    if remainder:
        yield ValidationError(f"is not a multiple of {multiple}")


def _required(_: Any, names: Any, instance: Any, __: Any) -> Errors:
    if isinstance(names, list) and isinstance(instance, dict):
        for name in names:
            if name not in instance:
                yield ValidationError(f"{name!r} is required")


def _minimum(validator: Any, bound: Any, instance: Any, schema: Any) -> Errors:
    if validator.is_type(instance, "number"):
        exclusive = schema.get("exclusiveMinimum") is True
        if instance < bound or (exclusive and instance == bound):
            yield ValidationError(f"is below {bound}")


def _maximum(validator: Any, bound: Any, instance: Any, schema: Any) -> Errors:
    if validator.is_type(instance, "number"):
        exclusive = schema.get("exclusiveMaximum") is True
        if instance > bound or (exclusive and instance == bound):
            yield ValidationError(f"is above {bound}")


def _exclusive_minimum(validator: Any, bound: Any, instance: Any, _: Any) -> Errors:
    if not isinstance(bound, bool) and validator.is_type(instance, "number") and instance <= bound:
        yield ValidationError(f"is not above {bound}")


def _exclusive_maximum(validator: Any, bound: Any, instance: Any, _: Any) -> Errors:
    if not isinstance(bound, bool) and validator.is_type(instance, "number") and instance >= bound:
        yield ValidationError(f"is not below {bound}")


def _items(validator: Any, items: Any, instance: Any, schema: Any) -> Errors:
    if not isinstance(instance, list):
        return
    if isinstance(items, list):  # before draft 2020-12
        for i, (item, each) in enumerate(zip(instance, items, strict=False)):
            yield from validator.descend(item, each, path=i, schema_path=i)
        return
    for i, item in list(enumerate(instance))[len(schema.get("prefixItems", [])) :]:
        yield from validator.descend(item, items, path=i)


def _additional_items(validator: Any, others: Any, instance: Any, schema: Any) -> Errors:
    if isinstance(instance, list) and isinstance(schema.get("items"), list):
        for i, item in list(enumerate(instance))[len(schema["items"]) :]:
            yield from validator.descend(item, others, path=i)


def _dependencies(validator: Any, dependencies: Any, instance: Any, _: Any) -> Errors:
    if not isinstance(instance, dict):
        return
    for name, dependency in dependencies.items():
        if name not in instance:
            continue
        if isinstance(dependency, list | str):
            yield from _required(
                validator, [dependency] if isinstance(dependency, str) else dependency, instance, None
            )
        else:
            yield from validator.descend(instance, dependency, schema_path=name)


_OLD_KEYWORDS = frozenset(("dependencies", "additionalItems", "exclusiveMinimum", "exclusiveMaximum"))
_CHECKS = {
    "pattern": _pattern,
    "multipleOf": _multiple_of,
    "required": _required,
    "minimum": _minimum,
    "maximum": _maximum,
    "exclusiveMinimum": _exclusive_minimum,
    "exclusiveMaximum": _exclusive_maximum,
    "items": _items,
    "additionalItems": _additional_items,
    "dependencies": _dependencies,
}
