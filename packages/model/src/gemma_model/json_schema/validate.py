"""Validates a finished output against a client's schema, with ``jsonschema``; runs in the sandbox.

References are never fetched. Patterns have the classes of ECMA 262, multiples are decimal, and keywords of
older drafts are understood whichever draft the schema names.
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


def fits(schema: Any, answer: str) -> bool:
    """Whether a JSON text fits a schema; a keyword that is no keyword of any draft has no say."""
    try:
        instance = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    standard = validator_for(schema, default=Draft202012Validator)
    own = {word: check for word, check in _CHECKS.items() if word in standard.VALIDATORS or word in _OLD}
    validator = extend(standard, own)(schema, registry=REGISTRY)  # type: ignore[no-untyped-call]
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


def _multiple(_: Any, multiple: Any, instance: Any, __: Any) -> Errors:
    if isinstance(instance, bool) or not isinstance(instance, int | float):
        return
    try:
        rest = Decimal(repr(instance)) % Decimal(repr(multiple))
    except InvalidOperation:
        return
    if rest:
        yield ValidationError(f"is not a multiple of {multiple}")


def _required(_: Any, names: Any, instance: Any, __: Any) -> Errors:
    if isinstance(names, list) and isinstance(instance, dict):
        for name in names:
            if name not in instance:
                yield ValidationError(f"{name!r} is required")


def _minimum(validator: Any, bound: Any, instance: Any, schema: Any) -> Errors:
    if validator.is_type(instance, "number"):
        open_ = schema.get("exclusiveMinimum") is True
        if instance < bound or (open_ and instance == bound):
            yield ValidationError(f"is below {bound}")


def _maximum(validator: Any, bound: Any, instance: Any, schema: Any) -> Errors:
    if validator.is_type(instance, "number"):
        open_ = schema.get("exclusiveMaximum") is True
        if instance > bound or (open_ and instance == bound):
            yield ValidationError(f"is above {bound}")


def _above(validator: Any, bound: Any, instance: Any, _: Any) -> Errors:
    if not isinstance(bound, bool) and validator.is_type(instance, "number") and instance <= bound:
        yield ValidationError(f"is not above {bound}")


def _below(validator: Any, bound: Any, instance: Any, _: Any) -> Errors:
    if not isinstance(bound, bool) and validator.is_type(instance, "number") and instance >= bound:
        yield ValidationError(f"is not below {bound}")


def _items(validator: Any, items: Any, instance: Any, schema: Any) -> Errors:
    if not isinstance(instance, list):
        return
    if isinstance(items, list):  # as drafts before 2020-12 have it
        for i, (item, each) in enumerate(zip(instance, items, strict=False)):
            yield from validator.descend(item, each, path=i, schema_path=i)
        return
    for i, item in list(enumerate(instance))[len(schema.get("prefixItems", [])) :]:
        yield from validator.descend(item, items, path=i)


def _additional_items(validator: Any, others: Any, instance: Any, schema: Any) -> Errors:
    if isinstance(instance, list) and isinstance(schema.get("items"), list):
        for i, item in list(enumerate(instance))[len(schema["items"]) :]:
            yield from validator.descend(item, others, path=i)


def _dependencies(validator: Any, needs: Any, instance: Any, _: Any) -> Errors:
    if not isinstance(instance, dict):
        return
    for name, wanted in needs.items():
        if name not in instance:
            continue
        if isinstance(wanted, list | str):
            yield from _required(validator, [wanted] if isinstance(wanted, str) else wanted, instance, None)
        else:
            yield from validator.descend(instance, wanted, schema_path=name)


_OLD = frozenset(("dependencies", "additionalItems", "exclusiveMinimum", "exclusiveMaximum"))
_CHECKS = {
    "pattern": _pattern,
    "multipleOf": _multiple,
    "required": _required,
    "minimum": _minimum,
    "maximum": _maximum,
    "exclusiveMinimum": _above,
    "exclusiveMaximum": _below,
    "items": _items,
    "additionalItems": _additional_items,
    "dependencies": _dependencies,
}
