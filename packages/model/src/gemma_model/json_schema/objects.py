"""Keywords about objects."""

import itertools
import math
import re
from typing import Any

from gemma_model.json_schema.document import Schema, SchemaLocation
from gemma_model.json_schema.errors import SchemaError
from gemma_model.json_schema.rewrite_context import (
    MOST_CASES,
    RewriteContext,
    conjunction,
    count,
    listed,
    mapping,
)


def rewrite_object(context: RewriteContext, node: dict[str, Any], at: SchemaLocation) -> dict[str, Any]:
    """The keywords about objects but ``minProperties`` and ``maxProperties``, as the library may have them.

    Args:
        context: the way so far.
        node: the schema.
        at: its place.

    Raises:
        SchemaError: about a keyword that is wrong, or cannot be enforced in a strict schema.
    """
    named = {
        name: context.rewrite(schema, at.down("properties", name))
        for name, schema in mapping(node, "properties", at).items()
    }
    others = context.rewrite(node.get("additionalProperties", True), at.down("additionalProperties"))
    patterned: dict[str, Schema] = {}
    if "patternProperties" in node and context.skips("patternProperties", at):
        others = True
    elif "patternProperties" in node:
        named, patterned, others = _by_pattern(context, node, at, named, others)
    if "propertyNames" in node and not context.skips("propertyNames", at):
        named, patterned, others = _by_name(context, node, at, named, patterned, others)
    required = _required(context, node, at)
    rewritten: dict[str, Any] = {"properties": named} if named else {}
    rewritten |= {"patternProperties": patterned} if patterned else {}
    rewritten |= {"required": required} if required else {}
    return rewritten | ({} if others is True else {"additionalProperties": others})


def _required(context: RewriteContext, node: dict[str, Any], at: SchemaLocation) -> list[str]:
    if isinstance(node.get("required"), bool):  # as draft 3 has it, of the property itself
        context.unenforced.note("required", at.path)
        return []
    names = listed(node, "required", at)
    if not all(isinstance(name, str) for name in names):
        raise SchemaError("required", at.path, "has an item that is not a string")
    return list(dict.fromkeys(names))


Kinds = tuple[dict[str, Schema], dict[str, Schema], Schema]
"""Schemas of properties: by name, by pattern, of all others."""


def _by_pattern(
    context: RewriteContext,
    node: dict[str, Any],
    at: SchemaLocation,
    named: dict[str, Schema],
    others: Schema,
) -> Kinds:
    """Names that match a pattern which the library does not know must fit as if all names matched it."""
    known: dict[str, Schema] = {}
    for pattern, schema in mapping(node, "patternProperties", at).items():
        rewritten = context.rewrite(schema, at.down("patternProperties", pattern))
        if not context.grammar_error({"type": "object", "patternProperties": {pattern: True}}):
            known[pattern] = rewritten
            continue
        others = conjunction((others, rewritten))
        named = {
            name: conjunction((own, rewritten)) if _matches(pattern, name) else own
            for name, own in named.items()
        }
    if len(known) > 1 and context.grammar_error(_only_patterns(known)):
        known = {"|".join(f"(?:{pattern})" for pattern in known): _one_of_all(list(known.values()))}
    return named, known, others


def _only_patterns(known: dict[str, Schema]) -> Schema:
    return {"type": "object", "patternProperties": dict.fromkeys(known, True), "additionalProperties": False}


def _one_of_all(schemas: list[Schema]) -> Schema:
    """What fits whichever patterns a name matches."""
    different = [schema for i, schema in enumerate(schemas) if schema not in schemas[:i]]
    return conjunction(different)


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name, re.ASCII) is not None
    except re.error:
        return True


def _by_name(
    context: RewriteContext,
    node: dict[str, Any],
    at: SchemaLocation,
    named: dict[str, Schema],
    patterned: dict[str, Schema],
    others: Schema,
) -> Kinds:
    """``propertyNames``: by a pattern, by length, or by a list."""
    rule = node["propertyNames"]
    if rule is True or (isinstance(rule, dict) and not _about_names(rule)):
        return named, patterned, others
    if (others is False and not patterned and not named) or rule is False:
        return dict.fromkeys(named, False), {}, False
    allowed = [rule["const"]] if "const" in rule else rule.get("enum")
    if isinstance(allowed, list):
        fresh: dict[str, Schema] = {name: others for name in allowed if isinstance(name, str)}
        return (
            {**fresh, **{name: schema if name in fresh else False for name, schema in named.items()}},
            {},
            False,
        )
    pattern = _name_pattern(rule)
    if pattern is None or patterned or context.grammar_error({"patternProperties": {pattern: True}}):
        context.unenforced.leave_out("propertyNames", at.path)
        return named, patterned, others
    fitting = {name: schema if _matches(pattern, name) else False for name, schema in named.items()}
    return fitting, ({} if others is False else {pattern: others}), False


def _about_names(rule: dict[str, Any]) -> bool:
    return bool(rule.keys() - {"type", "title", "description", "$comment", "format"})


def _name_pattern(rule: dict[str, Any]) -> str | None:
    words = rule.keys() - {"type", "title", "description", "$comment", "format"}
    if words == {"pattern"} and isinstance(rule["pattern"], str):
        return str(rule["pattern"])
    bounds = rule.get("minLength", 0), rule.get("maxLength", "")
    whole = isinstance(bounds[0], int) and (bounds[1] == "" or isinstance(bounds[1], int))
    return f"^(?s:.{{{bounds[0]},{bounds[1]}}})$" if words <= {"minLength", "maxLength"} and whole else None


def close(own: dict[str, Any], names: dict[str, None]) -> None:
    """Take no properties but the named ones."""
    properties: dict[str, Schema] = own.setdefault("properties", {})
    for name in names:
        properties.setdefault(name, True)
    own["additionalProperties"] = False


def counted(
    context: RewriteContext, node: dict[str, Any], at: SchemaLocation, own: dict[str, Any]
) -> list[Schema]:
    """``minProperties`` and ``maxProperties``: the constraints in addition to ``own``, which may be changed.

    Args:
        context: the way so far.
        node: the schema.
        at: its place.
        own: what it has become, without the two.
    """
    least, most = count(node, "minProperties", at) or 0, count(node, "maxProperties", at)
    required = own.get("required", [])
    optional = [
        name
        for name, schema in own.get("properties", {}).items()
        if name not in required and schema is not False
    ]
    parts: list[Schema] = []
    if (missing := least - len(required)) > 0 and not context.skips("minProperties", at):
        parts += _at_least(context, at, own, optional, missing, least)
    if most is not None and not context.skips("maxProperties", at):
        parts += _at_most(context, at, own, optional, most - len(required), most)
    return parts


def _is_open(own: dict[str, Any]) -> bool:
    return own.get("additionalProperties", True) is not False or "patternProperties" in own


def _at_least(
    context: RewriteContext,
    at: SchemaLocation,
    own: dict[str, Any],
    optional: list[str],
    missing: int,
    least: int,
) -> list[Schema]:
    if not optional:
        own["minProperties"] = least
        if missing > 1:  # the grammar does not see that a name comes twice
            context.unenforced.leave_out("minProperties", at.path)
        return []
    if missing > len(optional) and not _is_open(own):
        return [False]
    if math.comb(len(optional), missing) not in range(1, MOST_CASES + 1):
        context.unenforced.leave_out("minProperties", at.path)
        return []
    chosen = itertools.combinations(optional, missing)
    return [{"anyOf": [{"required": list(names)} for names in chosen]}]


def _at_most(
    context: RewriteContext,
    at: SchemaLocation,
    own: dict[str, Any],
    optional: list[str],
    room: int,
    most: int,
) -> list[Schema]:
    if room < 0:
        return [False]
    if not optional:
        own["maxProperties"] = most
        return []
    own["additionalProperties"] = False
    own.pop("patternProperties", None)
    if room >= len(optional):
        return []
    if math.comb(len(optional), room) > MOST_CASES:
        context.unenforced.leave_out("maxProperties", at.path)
        return []
    absent = itertools.combinations(optional, len(optional) - room)
    return [{"anyOf": [{"properties": dict.fromkeys(names, False)} for names in absent]}]
