"""Proves that no instance is valid for two schemas.

A ``oneOf`` of such schemas is the same as an ``anyOf`` (JSON Schema 2020-12, Core 10.2.1.2 and 10.2.1.3).
"""

from typing import Any

from gemma_model.json_schema.document import (
    Document,
    SchemaLocation,
    Subschema,
    array_or_empty,
    object_or_empty,
    types_of,
)
from gemma_model.json_schema.property_names import OTHER_PROPERTY_KEYWORDS

MAX_DEPTH = 8
"""Maximum recursion depth of a proof."""


def disjoint(
    doc: Document,
    one: Subschema,
    two: Subschema,
    closed: bool,
    depth: int = 0,
) -> bool:
    """Whether it is proven that no instance is valid for both schemas.

    Args:
        doc: the document of both schemas.
        one: a schema and its location.
        two: another schema and its location.
        closed: ``one`` allows no properties except those that it names.
        depth: recursion depth of the proof.
    """
    if depth > MAX_DEPTH:
        return False
    if one[0] is False or two[0] is False:
        return True
    if not (isinstance(one[0], dict) and isinstance(two[0], dict)):
        return False
    for first, second in ((one, two), (two, one)):
        for choices in _alternatives(doc, *first):
            pairs = (
                (alternative, second) if first is one else (second, alternative) for alternative in choices
            )
            if choices and all(disjoint(doc, a, b, closed, depth + 1) for a, b in pairs):
                return True
    return _keywords_disjoint(doc, one, two, closed, depth)


def _alternatives(doc: Document, node: Any, location: SchemaLocation) -> list[list[Subschema]]:
    """Lists of schemas: an instance of the node is valid for at least one schema of each list."""
    lists = [[conjunct] for conjunct in _conjuncts(doc, node, location)]
    location = doc.enter_resource(node, location)
    choices = (array_or_empty(node, keyword) for keyword in ("anyOf", "oneOf"))
    return lists + [[(subschema, location) for subschema in choice] for choice in choices]


def _keywords_disjoint(doc: Document, one: Subschema, two: Subschema, closed: bool, depth: int) -> bool:
    (a, location_a), (b, location_b) = one, two
    if (values := _constants(a)) is not None and (others := _constants(b)) is not None:
        return not any(
            value == other and _type_of(value) == _type_of(other) for value in values for other in others
        )
    if values is not None or (values := _constants(b)) is not None:
        allowed_types = _types(b if _constants(a) is not None else a)
        return all(_type_of(value) not in allowed_types for value in values)
    common_types = _resolved_types(doc, a, location_a) & _resolved_types(doc, b, location_b)
    if common_types == {"object"}:
        return _objects_disjoint(doc, one, two, closed, depth)
    if common_types == {"number"}:
        return _all_below(a, b) or _all_below(b, a)
    sizes = {"array": ("maxItems", "minItems"), "string": ("maxLength", "minLength")}
    max_keyword, min_keyword = sizes.get("".join(common_types), ("", ""))
    shorter = (x.get(max_keyword, 1e9) < y.get(min_keyword, 0) for x, y in ((a, b), (b, a)))
    return not common_types or (bool(max_keyword) and any(shorter))


def _objects_disjoint(doc: Document, one: Subschema, two: Subschema, closed: bool, depth: int) -> bool:
    (a, location_a), (b, location_b) = one, two
    named_a, named_b = object_or_empty(a, "properties"), property_schemas(doc, b, location_b)
    required_a, required_b = required_names(doc, a, location_a), required_names(doc, b, location_b)
    closed_a = a.get("additionalProperties") is False or (
        closed and not any(keyword in a for keyword in OTHER_PROPERTY_KEYWORDS)
    )
    if closed_a and "patternProperties" not in a and named_a and required_b - set(named_a) - required_a:
        return True
    closed_b = b.get("additionalProperties") is False and "patternProperties" not in b
    if closed_b and required_a - set(object_or_empty(b, "properties")):
        return True
    all_properties_a = property_schemas(doc, a, location_a)
    return any(
        disjoint(doc, mine, yours, False, depth + 1)
        for name in required_a | required_b
        for mine in all_properties_a.get(name, ())
        for yours in named_b.get(name, ())
    )


def required_names(doc: Document, node: Any, location: SchemaLocation, depth: int = 0) -> set[str]:
    """Names of properties that a schema, the subschemas of its ``allOf`` or its ``$ref`` require."""
    if not isinstance(node, dict) or depth > MAX_DEPTH:
        return set()
    names = {name for name in array_or_empty(node, "required") if isinstance(name, str)}
    for subschema, subschema_location in _conjuncts(doc, node, location):
        names |= required_names(doc, subschema, subschema_location, depth + 1)
    return names


def property_schemas(
    doc: Document, node: Any, location: SchemaLocation, depth: int = 0
) -> dict[str, list[Subschema]]:
    """The subschemas for each property in a schema, in its ``allOf`` and in the target of its ``$ref``."""
    if not isinstance(node, dict) or depth > MAX_DEPTH:
        return {}
    location = doc.enter_resource(node, location)
    found = {name: [(schema, location)] for name, schema in object_or_empty(node, "properties").items()}
    for subschema, subschema_location in _conjuncts(doc, node, location):
        for name, schemas in property_schemas(doc, subschema, subschema_location, depth + 1).items():
            found.setdefault(name, []).extend(schemas)
    return found


def _resolved_types(doc: Document, node: Any, location: SchemaLocation, depth: int = 0) -> set[str]:
    """The types that a schema, all subschemas of its ``allOf`` and the target of its ``$ref`` allow."""
    if not isinstance(node, dict) or depth > MAX_DEPTH:
        return _types({})
    types = _types(node)
    for subschema, subschema_location in _conjuncts(doc, node, location):
        types &= _resolved_types(doc, subschema, subschema_location, depth + 1)
    return types


def _conjuncts(doc: Document, node: dict[str, Any], location: SchemaLocation) -> list[Subschema]:
    """The subschemas of ``allOf`` and the target of ``$ref``: every instance must be valid for them too."""
    location = doc.enter_resource(node, location)
    conjuncts = [(subschema, location) for subschema in array_or_empty(node, "allOf")]
    if isinstance(node.get("$ref"), str) and (found := doc.resolve(node, location)):
        conjuncts.append(found)
    return conjuncts


def _all_below(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether all numbers that ``a`` allows are below those that ``b`` allows."""
    highs = [a[keyword] for keyword in ("maximum", "exclusiveMaximum") if _is_number(a.get(keyword))]
    lows = [b[keyword] for keyword in ("minimum", "exclusiveMinimum") if _is_number(b.get(keyword))]
    if not highs or not lows:
        return False
    high, low = min(highs), max(lows)
    touching = high == low and (a.get("exclusiveMaximum") == high or b.get("exclusiveMinimum") == low)
    return bool(high < low or touching)


def allows_type(node: Any, type_name: str) -> bool:
    """Whether the ``type`` keyword of a schema allows a type."""
    return not isinstance(node, dict) or type_name in _types(node)


def _constants(node: dict[str, Any]) -> list[Any] | None:
    if "const" in node:
        return [node["const"]]
    return node["enum"] if isinstance(node.get("enum"), list) else None


def _type_of(value: Any) -> str:
    types = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return types.get(type(value), "null")


def _types(node: dict[str, Any]) -> set[str]:
    return {"number" if name == "integer" else name for name in types_of(node) if isinstance(name, str)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
