"""Rewrites the keywords for arrays (JSON Schema 2020-12: Core 10.3.1 and 11.2, Validation 6.4)."""

import itertools
import json
from typing import Any

from gemma_model.json_schema.document import Schema, SchemaLocation
from gemma_model.json_schema.rewrite_context import (
    MAX_CASES,
    RewriteContext,
    conjunction,
    get_array,
    get_count,
)

MAX_ITEM_COUNT = 1000
"""Largest enforced number of items: the grammar grows with the bound."""
ARRAY_KEYWORDS = frozenset(
    (
        "items",
        "prefixItems",
        "additionalItems",
        "minItems",
        "maxItems",
        "uniqueItems",
        "contains",
        "minContains",
        "maxContains",
        "unevaluatedItems",
    )
)


def rewrite_array(context: RewriteContext, node: dict[str, Any], location: SchemaLocation) -> dict[str, Any]:
    """Rewrite the keywords for arrays into those that the grammar library enforces.

    Args:
        context: shared by all keywords of the document.
        node: the schema.
        location: of the schema.

    Returns:
        The rewritten keywords.

    Raises:
        SchemaError: a keyword has an invalid value, or cannot be enforced and the schema is strict.
    """
    prefix_items, rest = _items(context, node, location)
    min_items, max_items = get_count(node, "minItems", location) or 0, get_count(node, "maxItems", location)
    if "contains" in node and not context.skips("contains", location):
        prefix_items, min_items = _apply_contains(context, node, location, prefix_items, rest, min_items)
    if node.get("uniqueItems") is True and (max_items is None or max_items > 1):
        if rest is False:
            max_items = min(len(prefix_items), len(prefix_items) if max_items is None else max_items)
        if max_items is None or max_items > 1:
            context.unenforced.leave_out("uniqueItems", location.path)
    if min_items > MAX_ITEM_COUNT and not context.skips("minItems", location):
        context.unenforced.leave_out("minItems", location.path, f"is above {MAX_ITEM_COUNT:,}")
        min_items = 0
    rewritten: dict[str, Any] = {"prefixItems": prefix_items} if prefix_items else {}
    if rest is not True:
        rewritten["items"] = rest
    rewritten |= {"minItems": min_items} if min_items else {}
    return rewritten | ({} if max_items is None else {"maxItems": min(max_items, MAX_ITEM_COUNT)})


def _items(
    context: RewriteContext, node: dict[str, Any], location: SchemaLocation
) -> tuple[list[Schema], Schema]:
    """The schemas of the first items, and the schema of all other items."""
    items = node.get("items", True)
    if isinstance(items, list):  # before draft 2020-12
        prefix_items, keyword, rest = items, "items", node.get("additionalItems", True)
        rest_location = location.child("additionalItems")
    else:
        prefix_items, keyword, rest = get_array(node, "prefixItems", location), "prefixItems", items
        rest_location = location.child("items")
    if "items" not in node and "unevaluatedItems" in node and "contains" not in node:
        rest, rest_location = node["unevaluatedItems"], location.child("unevaluatedItems")
    rewritten_prefix = [
        context.rewrite(subschema, location.child(keyword, i)) for i, subschema in enumerate(prefix_items)
    ]
    return rewritten_prefix, context.rewrite(rest, rest_location)


def _apply_contains(
    context: RewriteContext,
    node: dict[str, Any],
    location: SchemaLocation,
    prefix_items: list[Schema],
    rest: Schema,
    min_items: int,
) -> tuple[list[Schema], int]:
    """Require the items of ``contains`` as the first items, so that the grammar can count them.

    Returns:
        The schemas of the first items, and the minimum number of items.
    """
    required_count = 1 if "minContains" not in node else get_count(node, "minContains", location) or 0
    if "maxContains" in node:
        context.unenforced.leave_out("maxContains", location.path)
    if prefix_items or required_count > MAX_CASES:
        context.unenforced.leave_out("contains", location.path)
        return prefix_items, min_items
    contained = context.rewrite(node["contains"], location.child("contains"))
    return [conjunction((contained, rest))] * required_count, max(min_items, required_count)


def unique_arrays(node: dict[str, Any]) -> list[Any] | None:
    """All valid arrays if the items are unique and at most four constants; otherwise ``None``."""
    items = node.get("items")
    values = items.get("enum") if isinstance(items, dict) and items.keys() <= {"enum", "type"} else None
    if node.get("uniqueItems") is not True or not isinstance(values, list):
        return None
    distinct = {json.dumps(value, sort_keys=True): value for value in values}
    if len(distinct) > 4 or len(distinct) < len(values):
        return None
    min_items, max_items = node.get("minItems", 0), node.get("maxItems", len(values))
    if not isinstance(min_items, int) or not isinstance(max_items, int):
        return []
    sizes = range(min_items, min(max_items, len(values)) + 1)
    return [list(chosen) for size in sizes for chosen in itertools.permutations(values, size)]
