"""Negates a schema, if keywords can express that."""

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from gemma_model.json_schema.document import TYPES, Schema, types_of

NOTES = frozenset(("title", "description", "$comment", "default", "examples", "deprecated", "$schema"))
Negation = Schema | None
"""``None`` where keywords cannot say it."""


def negate(node: Any) -> Negation:
    """A schema that takes what ``node`` does not, and nothing else."""
    if isinstance(node, bool):
        return not node
    if not isinstance(node, dict):
        return None
    words = {word: value for word, value in node.items() if word not in NOTES}
    if "type" in words and len(words) > 1:
        return _any([_not_type(words["type"]), _within_type(words)])
    return _any([_NEGATIONS.get(word, _unsayable)(value) for word, value in words.items()])


def has_reference(node: Any) -> bool:
    """Whether a schema contains ``$ref``, which ``negate`` does not follow."""
    return '"$ref"' in json.dumps(node)


def _within_type(words: dict[str, Any]) -> Negation:
    """What has the type and breaks one of the other keywords."""
    rest = negate({word: value for word, value in words.items() if word != "type"})
    return None if rest is None else {"allOf": [{"type": words["type"]}, rest]}


def _any(options: Iterable[Negation]) -> Negation:
    known = list(options)
    if any(option is None for option in known):
        return None
    fitting = [option for option in known if option is not False]
    return {"anyOf": fitting} if fitting else False


def _all(parts: Iterable[Negation]) -> Negation:
    known = list(parts)
    return None if any(part is None for part in known) else {"allOf": known}


def _unsayable(_: Any) -> Negation:
    return None


def _not_type(named: Any) -> Negation:
    names = set(types_of({"type": named}))
    if "integer" in names and "number" not in names:
        return None
    left = [name for name in TYPES if name not in names and name != "integer"]
    return {"type": left} if left else False


def _not_values(values: Any) -> Negation:
    """Not one of these: by type."""
    if not isinstance(values, list):
        return None
    strings = {value for value in values if isinstance(value, str)}
    numbers = {value for value in values if isinstance(value, int | float) and not isinstance(value, bool)}
    truths = {value for value in values if isinstance(value, bool)}
    if any(isinstance(value, list | dict) for value in values):
        return None
    options: list[Schema] = [{"type": ["array", "object"]}]
    if None not in values:
        options.append({"type": "null"})
    if left := [truth for truth in (True, False) if truth not in truths]:
        options.append({"enum": left})
    options += _beside_numbers(sorted(numbers))
    options.append({"type": "string", "pattern": other_than(strings)} if strings else {"type": "string"})
    return {"anyOf": options}


def _beside_numbers(numbers: list[float]) -> list[Schema]:
    if not numbers:
        return [{"type": "number"}]
    between: list[Schema] = [
        {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high}
        for low, high in pairwise(numbers)
    ]
    below: Schema = {"type": "number", "exclusiveMaximum": numbers[0]}
    return [below, *between, {"type": "number", "exclusiveMinimum": numbers[-1]}]


def _not_required(names: Any) -> Negation:
    if not isinstance(names, list):
        return None
    return _any({"type": "object", "properties": {name: False}} for name in names)


def _not_properties(properties: Any) -> Negation:
    if not isinstance(properties, dict):
        return None
    return _any(_with_property(name, negate(schema)) for name, schema in properties.items())


def _with_property(name: str, schema: Negation) -> Negation:
    if schema is None or schema is False:
        return schema
    return {"type": "object", "required": [name], "properties": {name: schema}}


def _bound(kind: str, word: str, by: int) -> Callable[[Any], Negation]:
    def negated(value: Any) -> Negation:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return False if value + by < 0 and kind != "number" else {"type": kind, word: value + by}

    return negated


_NEGATIONS: dict[str, Callable[[Any], Negation]] = {
    "type": _not_type,
    "const": lambda value: _not_values([value]),
    "enum": _not_values,
    "required": _not_required,
    "properties": _not_properties,
    "not": lambda node: node if isinstance(node, dict | bool) else None,
    "anyOf": lambda nodes: _all(map(negate, nodes)) if isinstance(nodes, list) else None,
    "allOf": lambda nodes: _any(map(negate, nodes)) if isinstance(nodes, list) else None,
    "minimum": _bound("number", "exclusiveMaximum", 0),
    "maximum": _bound("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": _bound("number", "maximum", 0),
    "exclusiveMaximum": _bound("number", "minimum", 0),
    "minLength": _bound("string", "maxLength", -1),
    "maxLength": _bound("string", "minLength", 1),
    "minItems": _bound("array", "maxItems", -1),
    "maxItems": _bound("array", "minItems", 1),
}


def other_than(words: Iterable[str]) -> str:
    """A pattern for every string but these."""
    return f"^(?:{_beside(set(words))})$"


def _beside(words: set[str]) -> str:
    """For what may follow where one of these must not be all that follows."""
    options = [] if "" in words else [""]
    heads = sorted({word[0] for word in words if word})
    options += [
        re.escape(head) + f"(?:{_beside({word[1:] for word in words if word[:1] == head})})" for head in heads
    ]
    listed = "".join(map(_in_class, heads))
    options.append(f"[^{listed}](?s:.*)" if heads else "(?s:.+)")
    return "|".join(options)


def _in_class(char: str) -> str:
    return f"\\{char}" if char in "\\]^-[&~" else char
