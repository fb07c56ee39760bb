"""Proves that no value fits two schemas, which makes a ``oneOf`` of them an ``anyOf``."""

from typing import Any

from gemma_model.json_schema.document import Document, SchemaLocation, list_of, map_of, types_of
from gemma_model.json_schema.property_names import OPENING

DEPTH = 8
"""A proof that goes deeper is given up."""


def disjoint(
    doc: Document,
    one: tuple[Any, SchemaLocation],
    two: tuple[Any, SchemaLocation],
    closed: bool,
    depth: int = 0,
) -> bool:
    """Whether it is sure that no value fits both.

    Args:
        doc: both are part of it.
        one: a schema and its place.
        two: another.
        closed: the first takes no properties but those that it names.
        depth: of the proof so far.
    """
    if depth > DEPTH:
        return False
    if one[0] is False or two[0] is False:
        return True
    if not (isinstance(one[0], dict) and isinstance(two[0], dict)):
        return False
    for first, second in ((one, two), (two, one)):
        for choices in _alternatives(doc, *first):
            pairs = ((it, second) if first is one else (second, it) for it in choices)
            if choices and all(disjoint(doc, a, b, closed, depth + 1) for a, b in pairs):
                return True
    return _plainly_disjoint(doc, one, two, closed, depth)


def _alternatives(doc: Document, node: Any, at: SchemaLocation) -> list[list[tuple[Any, SchemaLocation]]]:
    """Lists of schemas; what fits the node fits at least one of each list."""
    at = doc.enter(node, at)
    lists = [[(part, at)] for part in list_of(node, "allOf")]
    lists += [[(part, at) for part in list_of(node, word)] for word in ("anyOf", "oneOf")]
    if isinstance(node.get("$ref"), str) and (found := doc.follow(node, at)):
        lists.append([found])
    return lists


def _plainly_disjoint(
    doc: Document, one: tuple[Any, SchemaLocation], two: tuple[Any, SchemaLocation], closed: bool, depth: int
) -> bool:
    (a, at_a), (b, at_b) = one, two
    if (values := _values(a)) is not None and (others := _values(b)) is not None:
        return not any(
            value == other and _kind(value) == _kind(other) for value in values for other in others
        )
    if values is not None or (values := _values(b)) is not None:
        wanted = _kinds(b if _values(a) is not None else a)
        return all(_kind(value) not in wanted for value in values)
    common = _kinds_of(doc, a, at_a) & _kinds_of(doc, b, at_b)
    if common == {"object"}:
        return _objects_disjoint(doc, one, two, closed, depth)
    if common == {"number"}:
        return _below(a, b) or _below(b, a)
    sizes = {"array": ("maxItems", "minItems"), "string": ("maxLength", "minLength")}
    most, least = sizes.get("".join(common), ("", ""))
    shorter = (x.get(most, 1e9) < y.get(least, 0) for x, y in ((a, b), (b, a)))
    return not common or (bool(most) and any(shorter))


def _objects_disjoint(
    doc: Document, one: tuple[Any, SchemaLocation], two: tuple[Any, SchemaLocation], closed: bool, depth: int
) -> bool:
    (a, at_a), (b, at_b) = one, two
    named_a, named_b = map_of(a, "properties"), properties_of(doc, b, at_b)
    needs_a, needs_b = required_of(doc, a, at_a), required_of(doc, b, at_b)
    shut_a = a.get("additionalProperties") is False or (closed and not any(word in a for word in OPENING))
    if shut_a and "patternProperties" not in a and named_a and needs_b - set(named_a) - needs_a:
        return True
    shut_b = b.get("additionalProperties") is False and "patternProperties" not in b
    if shut_b and needs_a - set(map_of(b, "properties")):
        return True
    every_a = properties_of(doc, a, at_a)
    return any(
        disjoint(doc, mine, yours, False, depth + 1)
        for name in needs_a | needs_b
        for mine in every_a.get(name, ())
        for yours in named_b.get(name, ())
    )


def required_of(doc: Document, node: Any, at: SchemaLocation, depth: int = 0) -> set[str]:
    """The names that every object needs which fits the schema, as far as ``allOf`` and references tell."""
    if not isinstance(node, dict) or depth > DEPTH:
        return set()
    names = {name for name in list_of(node, "required") if isinstance(name, str)}
    for part, place in _met(doc, node, at):
        names |= required_of(doc, part, place, depth + 1)
    return names


def properties_of(
    doc: Document, node: Any, at: SchemaLocation, depth: int = 0
) -> dict[str, list[tuple[Any, SchemaLocation]]]:
    """The schemas that each property must fit, as far as ``allOf`` and references tell."""
    if not isinstance(node, dict) or depth > DEPTH:
        return {}
    at = doc.enter(node, at)
    found = {name: [(schema, at)] for name, schema in map_of(node, "properties").items()}
    for part, place in _met(doc, node, at):
        for name, schemas in properties_of(doc, part, place, depth + 1).items():
            found.setdefault(name, []).extend(schemas)
    return found


def _kinds_of(doc: Document, node: Any, at: SchemaLocation, depth: int = 0) -> set[str]:
    """The types of what fits, as far as ``allOf`` and references tell."""
    if not isinstance(node, dict) or depth > DEPTH:
        return _kinds({})
    kinds = _kinds(node)
    for part, place in _met(doc, node, at):
        kinds &= _kinds_of(doc, part, place, depth + 1)
    return kinds


def _met(doc: Document, node: dict[str, Any], at: SchemaLocation) -> list[tuple[Any, SchemaLocation]]:
    """The other schemas that whatever fits this one fits."""
    at = doc.enter(node, at)
    parts = [(part, at) for part in list_of(node, "allOf")]
    if isinstance(node.get("$ref"), str) and (found := doc.follow(node, at)):
        parts.append(found)
    return parts


def _below(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether all numbers of one are below those of the other."""
    highs = [a[word] for word in ("maximum", "exclusiveMaximum") if _is_number(a.get(word))]
    lows = [b[word] for word in ("minimum", "exclusiveMinimum") if _is_number(b.get(word))]
    if not highs or not lows:
        return False
    high, low = min(highs), max(lows)
    touching = high == low and (a.get("exclusiveMaximum") == high or b.get("exclusiveMinimum") == low)
    return bool(high < low or touching)


def types_may_be(node: Any, kind: str) -> bool:
    """Whether a schema does not exclude a type by name."""
    return not isinstance(node, dict) or kind in _kinds(node)


def _values(node: dict[str, Any]) -> list[Any] | None:
    if "const" in node:
        return [node["const"]]
    return node["enum"] if isinstance(node.get("enum"), list) else None


def _kind(value: Any) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _kinds(node: dict[str, Any]) -> set[str]:
    return {"number" if name == "integer" else name for name in types_of(node) if isinstance(name, str)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
