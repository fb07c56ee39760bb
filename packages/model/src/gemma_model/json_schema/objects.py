"""Rewrites the keywords for objects (JSON Schema 2020-12: Core 10.3.2, Validation 6.5)."""

import itertools
import math
import re
from typing import Any

from gemma_model.json_schema.document import Schema, SchemaLocation
from gemma_model.json_schema.errors import SchemaError
from gemma_model.json_schema.rewrite_context import (
    MAX_CASES,
    RewriteContext,
    conjunction,
    get_array,
    get_count,
    get_object,
)


def rewrite_object(context: RewriteContext, node: dict[str, Any], location: SchemaLocation) -> dict[str, Any]:
    """Rewrite the keywords for objects, except ``minProperties`` and ``maxProperties``.

    Args:
        context: shared by all keywords of the document.
        node: the schema.
        location: of the schema.

    Returns:
        The keywords that the grammar library enforces.

    Raises:
        SchemaError: a keyword has an invalid value, or cannot be enforced and the schema is strict.
    """
    named = {
        name: context.rewrite(schema, location.child("properties", name))
        for name, schema in get_object(node, "properties", location).items()
    }
    others = context.rewrite(node.get("additionalProperties", True), location.child("additionalProperties"))
    patterned: dict[str, Schema] = {}
    if "patternProperties" in node and context.skips("patternProperties", location):
        others = True
    elif "patternProperties" in node:
        named, patterned, others = _apply_pattern_properties(context, node, location, named, others)
    if "propertyNames" in node and not context.skips("propertyNames", location):
        named, patterned, others = _apply_property_names(context, node, location, named, patterned, others)
    required = _required(context, node, location)
    rewritten: dict[str, Any] = {"properties": named} if named else {}
    rewritten |= {"patternProperties": patterned} if patterned else {}
    rewritten |= {"required": required} if required else {}
    return rewritten | ({} if others is True else {"additionalProperties": others})


def _required(context: RewriteContext, node: dict[str, Any], location: SchemaLocation) -> list[str]:
    if isinstance(node.get("required"), bool):  # draft 3: the property itself is required
        context.unenforced.note("required", location.path)
        return []
    names = get_array(node, "required", location)
    if not all(isinstance(name, str) for name in names):
        raise SchemaError("required", location.path, "has an item that is not a string")
    return list(dict.fromkeys(names))


PropertySchemas = tuple[dict[str, Schema], dict[str, Schema], Schema]
"""The schemas of properties: by name, by pattern, and of all other properties."""


def _apply_pattern_properties(
    context: RewriteContext,
    node: dict[str, Any],
    location: SchemaLocation,
    named: dict[str, Schema],
    others: Schema,
) -> PropertySchemas:
    """Rewrite ``patternProperties``.

    If the library does not support a pattern, any other name may match it: its schema applies to all of them.
    """
    known: dict[str, Schema] = {}
    for pattern, schema in get_object(node, "patternProperties", location).items():
        rewritten = context.rewrite(schema, location.child("patternProperties", pattern))
        if not context.grammar_error({"type": "object", "patternProperties": {pattern: True}}):
            known[pattern] = rewritten
            continue
        others = conjunction((others, rewritten))
        named = {
            name: conjunction((own, rewritten)) if _matches(pattern, name) else own
            for name, own in named.items()
        }
    if len(known) > 1 and context.grammar_error(_only_patterns(known)):
        # a property must be valid for the schemas of all patterns, whichever of them its name matches
        distinct = [schema for i, schema in enumerate(known.values()) if schema not in [*known.values()][:i]]
        known = {"|".join(f"(?:{pattern})" for pattern in known): conjunction(distinct)}
    return named, known, others


def _only_patterns(known: dict[str, Schema]) -> Schema:
    return {"type": "object", "patternProperties": dict.fromkeys(known, True), "additionalProperties": False}


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name, re.ASCII) is not None
    except re.error:
        return True


def _apply_property_names(
    context: RewriteContext,
    node: dict[str, Any],
    location: SchemaLocation,
    named: dict[str, Schema],
    patterned: dict[str, Schema],
    others: Schema,
) -> PropertySchemas:
    """Rewrite ``propertyNames`` with a pattern, bounds of the length, or a list of names."""
    names_schema = node["propertyNames"]
    if names_schema is True or (isinstance(names_schema, dict) and not _name_keywords(names_schema)):
        return named, patterned, others
    if (others is False and not patterned and not named) or names_schema is False:
        return dict.fromkeys(named, False), {}, False
    allowed = [names_schema["const"]] if "const" in names_schema else names_schema.get("enum")
    if isinstance(allowed, list):
        listed: dict[str, Schema] = {name: others for name in allowed if isinstance(name, str)}
        own = {name: schema if name in listed else False for name, schema in named.items()}
        return {**listed, **own}, {}, False
    pattern = _pattern_of_names(names_schema)
    if pattern is None or patterned or context.grammar_error({"patternProperties": {pattern: True}}):
        context.unenforced.leave_out("propertyNames", location.path)
        return named, patterned, others
    matching = {name: schema if _matches(pattern, name) else False for name, schema in named.items()}
    return matching, ({} if others is False else {pattern: others}), False


def _name_keywords(names_schema: dict[str, Any]) -> set[str]:
    """The keywords of ``propertyNames`` that constrain a name."""
    return names_schema.keys() - {"type", "title", "description", "$comment", "format"}


def _pattern_of_names(names_schema: dict[str, Any]) -> str | None:
    keywords = _name_keywords(names_schema)
    if keywords == {"pattern"} and isinstance(names_schema["pattern"], str):
        return str(names_schema["pattern"])
    bounds = names_schema.get("minLength", 0), names_schema.get("maxLength", "")
    valid = isinstance(bounds[0], int) and (bounds[1] == "" or isinstance(bounds[1], int))
    return (
        f"^(?s:.{{{bounds[0]},{bounds[1]}}})$" if keywords <= {"minLength", "maxLength"} and valid else None
    )


def disallow_other_properties(own: dict[str, Any], names: dict[str, None]) -> None:
    """Allow no properties except these; ``own`` is changed."""
    properties: dict[str, Schema] = own.setdefault("properties", {})
    for name in names:
        properties.setdefault(name, True)
    own["additionalProperties"] = False


def rewrite_property_counts(
    context: RewriteContext, node: dict[str, Any], location: SchemaLocation, own: dict[str, Any]
) -> list[Schema]:
    """Rewrite ``minProperties`` and ``maxProperties`` (JSON Schema 2020-12, Validation 6.5.1 and 6.5.2).

    Args:
        context: shared by all keywords of the document.
        node: the schema.
        location: of the schema.
        own: the rewritten schema without these keywords; may be changed.

    Returns:
        Schemas that apply in addition to ``own``.

    Raises:
        SchemaError: a keyword has an invalid value, or cannot be enforced and the schema is strict.
    """
    min_properties = get_count(node, "minProperties", location) or 0
    max_properties = get_count(node, "maxProperties", location)
    required = own.get("required", [])
    optional = [
        name
        for name, schema in own.get("properties", {}).items()
        if name not in required and schema is not False
    ]
    subschemas: list[Schema] = []
    if (missing := min_properties - len(required)) > 0 and not context.skips("minProperties", location):
        subschemas += _at_least(context, location, own, optional, missing, min_properties)
    if max_properties is not None and not context.skips("maxProperties", location):
        subschemas += _at_most(
            context, location, own, optional, max_properties - len(required), max_properties
        )
    return subschemas


def _allows_other_properties(own: dict[str, Any]) -> bool:
    return own.get("additionalProperties", True) is not False or "patternProperties" in own


def _at_least(
    context: RewriteContext,
    location: SchemaLocation,
    own: dict[str, Any],
    optional: list[str],
    missing: int,
    min_properties: int,
) -> list[Schema]:
    if not optional:
        own["minProperties"] = min_properties
        if missing > 1:  # the grammar allows the same name twice
            context.unenforced.leave_out("minProperties", location.path)
        return []
    if missing > len(optional) and not _allows_other_properties(own):
        return [False]
    if math.comb(len(optional), missing) not in range(1, MAX_CASES + 1):
        context.unenforced.leave_out("minProperties", location.path)
        return []
    combinations = itertools.combinations(optional, missing)
    return [{"anyOf": [{"required": list(names)} for names in combinations]}]


def _at_most(
    context: RewriteContext,
    location: SchemaLocation,
    own: dict[str, Any],
    optional: list[str],
    max_optional: int,
    max_properties: int,
) -> list[Schema]:
    if max_optional < 0:
        return [False]
    if not optional:
        own["maxProperties"] = max_properties
        return []
    own["additionalProperties"] = False
    own.pop("patternProperties", None)
    if max_optional >= len(optional):
        return []
    if math.comb(len(optional), max_optional) > MAX_CASES:
        context.unenforced.leave_out("maxProperties", location.path)
        return []
    absent = itertools.combinations(optional, len(optional) - max_optional)
    return [{"anyOf": [{"properties": dict.fromkeys(names, False)} for names in absent]}]
