"""The names of properties that a schema speaks of."""

from typing import Any

from gemma_model.json_schema.document import Document, SchemaLocation, list_of, map_of

ABOUT_OBJECTS = frozenset(
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
OF_OBJECTS = ABOUT_OBJECTS | {"dependentRequired", "dependentSchemas", "dependencies"}
OPENING = ("additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames")
"""Keywords that say themselves which other properties a value may have."""


def known_names(
    doc: Document, node: Any, at: SchemaLocation, seen: frozenset[int] = frozenset()
) -> dict[str, None] | None:
    """The names of properties that a schema speaks of; nothing when it says itself what others may be.

    Args:
        doc: the document.
        node: a schema.
        at: its place.
        seen: schemas that are being looked into.
    """
    if not isinstance(node, dict) or id(node) in seen:
        return {}
    if any(word in node for word in OPENING):
        return None
    at, seen = doc.enter(node, at), seen | {id(node)}
    names: dict[str, None] = dict.fromkeys(map_of(node, "properties"))
    names |= dict.fromkeys(name for name in list_of(node, "required") if isinstance(name, str))
    for part, place in _in_place(doc, node, at):
        more = known_names(doc, part, place, seen)
        if more is None:
            return None
        names |= more
    return names


def _in_place(doc: Document, node: dict[str, Any], at: SchemaLocation) -> list[tuple[Any, SchemaLocation]]:
    """The schemas within that are about the same value."""
    parts = [(part, at) for word in ("allOf", "anyOf", "oneOf") for part in list_of(node, word)]
    parts += [(node[word], at) for word in ("if", "then", "else") if word in node]
    for word in ("dependentSchemas", "dependencies", "dependentRequired"):
        for name, part in map_of(node, word).items():
            needs = [name, *(part if isinstance(part, list) else ())]
            parts += [({"required": needs}, at), (part, at)]
    if isinstance(node.get("$ref"), str) and (found := doc.follow(node, at)):
        parts.append(found)
    return parts


def names_properties(
    doc: Document, node: Any, at: SchemaLocation, seen: frozenset[int] = frozenset()
) -> bool:
    """Whether a schema, or one about the same value within it, lists ``properties``."""
    if not isinstance(node, dict) or id(node) in seen:
        return False
    at, seen = doc.enter(node, at), seen | {id(node)}
    return "properties" in node or any(
        names_properties(doc, part, place, seen) for part, place in _in_place(doc, node, at)
    )
