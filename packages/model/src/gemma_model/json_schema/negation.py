"""Negates a schema, so that ``not``, ``if`` and ``else`` can be enforced (JSON Schema 2020-12, Core 10.2)."""

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from gemma_model.json_schema.document import TYPES, Schema, types_of

ANNOTATIONS = frozenset(("title", "description", "$comment", "default", "examples", "deprecated", "$schema"))
Negation = Schema | None
"""``None`` if keywords cannot express the negation."""


def negate(node: Any) -> Negation:
    """A schema that allows exactly the instances that are not valid for ``node``."""
    if isinstance(node, bool):
        return not node
    if not isinstance(node, dict):
        return None
    keywords = {keyword: value for keyword, value in node.items() if keyword not in ANNOTATIONS}
    if "type" in keywords and len(keywords) > 1:
        return _any([_not_type(keywords["type"]), _type_with_negated_keywords(keywords)])
    return _any([_NEGATIONS.get(keyword, _not_expressible)(value) for keyword, value in keywords.items()])


def has_reference(node: Any) -> bool:
    """Whether a schema contains ``$ref``, which ``negate`` does not resolve."""
    return '"$ref"' in json.dumps(node)


def _type_with_negated_keywords(keywords: dict[str, Any]) -> Negation:
    """Instances of the type that are not valid for one of the other keywords."""
    rest = negate({keyword: value for keyword, value in keywords.items() if keyword != "type"})
    return None if rest is None else {"allOf": [{"type": keywords["type"]}, rest]}


def _any(options: Iterable[Negation]) -> Negation:
    known = list(options)
    if any(option is None for option in known):
        return None
    possible = [option for option in known if option is not False]
    return {"anyOf": possible} if possible else False


def _all(subschemas: Iterable[Negation]) -> Negation:
    known = list(subschemas)
    return None if any(subschema is None for subschema in known) else {"allOf": known}


def _not_expressible(_: Any) -> Negation:
    return None


def _not_type(named: Any) -> Negation:
    names = set(types_of({"type": named}))
    if "integer" in names and "number" not in names:
        return None
    left = [name for name in TYPES if name not in names and name != "integer"]
    return {"type": left} if left else False


def _not_values(values: Any) -> Negation:
    """All values except these: one schema for each type."""
    if not isinstance(values, list):
        return None
    strings = {value for value in values if isinstance(value, str)}
    numbers = {value for value in values if isinstance(value, int | float) and not isinstance(value, bool)}
    booleans = {value for value in values if isinstance(value, bool)}
    if any(isinstance(value, list | dict) for value in values):
        return None
    options: list[Schema] = [{"type": ["array", "object"]}]
    if None not in values:
        options.append({"type": "null"})
    if left := [boolean for boolean in (True, False) if boolean not in booleans]:
        options.append({"enum": left})
    options += _other_numbers(sorted(numbers))
    options.append(
        {"type": "string", "pattern": pattern_of_other_strings(strings)} if strings else {"type": "string"}
    )
    return {"anyOf": options}


def _other_numbers(numbers: list[float]) -> list[Schema]:
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


def _negated_bound(type_name: str, keyword: str, by: int) -> Callable[[Any], Negation]:
    def negated(value: Any) -> Negation:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return False if value + by < 0 and type_name != "number" else {"type": type_name, keyword: value + by}

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
    "minimum": _negated_bound("number", "exclusiveMaximum", 0),
    "maximum": _negated_bound("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": _negated_bound("number", "maximum", 0),
    "exclusiveMaximum": _negated_bound("number", "minimum", 0),
    "minLength": _negated_bound("string", "maxLength", -1),
    "maxLength": _negated_bound("string", "minLength", 1),
    "minItems": _negated_bound("array", "maxItems", -1),
    "maxItems": _negated_bound("array", "minItems", 1),
}


def pattern_of_other_strings(strings: Iterable[str]) -> str:
    """A pattern that matches every string except these."""
    return f"^(?:{_alternatives_to(set(strings))})$"


def _alternatives_to(strings: set[str]) -> str:
    """A regular expression for every continuation except these strings."""
    options = [] if "" in strings else [""]
    first_chars = sorted({string[0] for string in strings if string})
    options += [
        re.escape(char) + f"(?:{_alternatives_to({string[1:] for string in strings if string[:1] == char})})"
        for char in first_chars
    ]
    excluded = "".join(map(_escape_in_class, first_chars))
    options.append(f"[^{excluded}](?s:.*)" if first_chars else "(?s:.+)")
    return "|".join(options)


def _escape_in_class(char: str) -> str:
    return f"\\{char}" if char in "\\]^-[&~" else char
