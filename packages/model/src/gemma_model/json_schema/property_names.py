"""Finds the names of the properties that a schema mentions."""

from typing import Any

from gemma_model.json_schema.document import (
    Document,
    SchemaLocation,
    Subschema,
    array_or_empty,
    object_or_empty,
)

OBJECT_KEYWORDS = frozenset(
    (
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "unevaluatedProperties",
    )
)
ALL_OBJECT_KEYWORDS = OBJECT_KEYWORDS | {"dependentRequired", "dependentSchemas", "dependencies"}
OTHER_PROPERTY_KEYWORDS = (
    "additionalProperties",
    "patternProperties",
    "unevaluatedProperties",
    "propertyNames",
)
"""Keywords that define which other properties an object may have."""


def known_property_names(
    doc: Document, node: Any, location: SchemaLocation, seen: frozenset[int] = frozenset()
) -> dict[str, None] | None:
    """The names of the properties that a schema, or a subschema for the same instance, mentions.

    Args:
        doc: the document.
        node: a schema.
        location: of the schema.
        seen: ``id`` of each schema that is being visited.

    Returns:
        The names in order; ``None`` if a keyword defines which other properties are allowed.
    """
    if not isinstance(node, dict) or id(node) in seen:
        return {}
    if any(keyword in node for keyword in OTHER_PROPERTY_KEYWORDS):
        return None
    location, seen = doc.enter_resource(node, location), seen | {id(node)}
    names: dict[str, None] = dict.fromkeys(object_or_empty(node, "properties"))
    names |= dict.fromkeys(name for name in array_or_empty(node, "required") if isinstance(name, str))
    for subschema, subschema_location in _in_place_subschemas(doc, node, location):
        more = known_property_names(doc, subschema, subschema_location, seen)
        if more is None:
            return None
        names |= more
    return names


def _in_place_subschemas(doc: Document, node: dict[str, Any], location: SchemaLocation) -> list[Subschema]:
    """The subschemas that apply to the same instance (JSON Schema 2020-12, Core 10.2)."""
    subschemas = [
        (subschema, location)
        for keyword in ("allOf", "anyOf", "oneOf")
        for subschema in array_or_empty(node, keyword)
    ]
    subschemas += [(node[keyword], location) for keyword in ("if", "then", "else") if keyword in node]
    for keyword in ("dependentSchemas", "dependencies", "dependentRequired"):
        for name, subschema in object_or_empty(node, keyword).items():
            required = [name, *(subschema if isinstance(subschema, list) else ())]
            subschemas += [({"required": required}, location), (subschema, location)]
    if isinstance(node.get("$ref"), str) and (found := doc.resolve(node, location)):
        subschemas.append(found)
    return subschemas


def lists_properties(
    doc: Document, node: Any, location: SchemaLocation, seen: frozenset[int] = frozenset()
) -> bool:
    """Whether a schema, or a subschema for the same instance, has ``properties``."""
    if not isinstance(node, dict) or id(node) in seen:
        return False
    location, seen = doc.enter_resource(node, location), seen | {id(node)}
    return "properties" in node or any(
        lists_properties(doc, subschema, subschema_location, seen)
        for subschema, subschema_location in _in_place_subschemas(doc, node, location)
    )
