"""Keywords about arrays."""

import itertools
import json
from typing import Any

from gemma_model.json_schema.document import Schema, SchemaLocation
from gemma_model.json_schema.rewrite_context import MOST_CASES, RewriteContext, conjunction, count, listed

LONGEST = 1000
"""Items that a bound can be about; the grammar has a place for each."""
ABOUT_ARRAYS = frozenset(
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


def rewrite_array(context: RewriteContext, node: dict[str, Any], at: SchemaLocation) -> dict[str, Any]:
    """The keywords about arrays, as the library may have them.

    Args:
        context: the way so far.
        node: the schema.
        at: its place.

    Raises:
        SchemaError: about a keyword that is wrong, or cannot be enforced in a strict schema.
    """
    heads, rest = _items(context, node, at)
    least, most = count(node, "minItems", at) or 0, count(node, "maxItems", at)
    if "contains" in node and not context.skips("contains", at):
        heads, least = _containing(context, node, at, heads, rest, least)
    if node.get("uniqueItems") is True and (most is None or most > 1):
        if rest is False:
            most = min(len(heads), len(heads) if most is None else most)
        if most is None or most > 1:
            context.unenforced.leave_out("uniqueItems", at.path)
    if least > LONGEST and not context.skips("minItems", at):
        context.unenforced.leave_out("minItems", at.path, f"is above {LONGEST:,}")
        least = 0
    rewritten: dict[str, Any] = {"prefixItems": heads} if heads else {}
    if rest is not True:
        rewritten["items"] = rest
    rewritten |= {"minItems": least} if least else {}
    return rewritten | ({} if most is None else {"maxItems": min(most, LONGEST)})


def _items(context: RewriteContext, node: dict[str, Any], at: SchemaLocation) -> tuple[list[Schema], Schema]:
    """The schemas of the first items, and of all others."""
    items = node.get("items", True)
    if isinstance(items, list):  # as drafts before 2020-12 have it
        heads, word, rest = items, "items", node.get("additionalItems", True)
        rest_at = at.down("additionalItems")
    else:
        heads, word, rest = listed(node, "prefixItems", at), "prefixItems", items
        rest_at = at.down("items")
    if "items" not in node and "unevaluatedItems" in node and "contains" not in node:
        rest, rest_at = node["unevaluatedItems"], at.down("unevaluatedItems")
    firsts = [context.rewrite(head, at.down(word, i)) for i, head in enumerate(heads)]
    return firsts, context.rewrite(rest, rest_at)


def _containing(
    context: RewriteContext,
    node: dict[str, Any],
    at: SchemaLocation,
    heads: list[Schema],
    rest: Schema,
    least: int,
) -> tuple[list[Schema], int]:
    """The items that must be there come first."""
    wanted = 1 if "minContains" not in node else count(node, "minContains", at) or 0
    if "maxContains" in node:
        context.unenforced.leave_out("maxContains", at.path)
    if heads or wanted > MOST_CASES:
        context.unenforced.leave_out("contains", at.path)
        return heads, least
    wish = context.rewrite(node["contains"], at.down("contains"))
    return [conjunction((wish, rest))] * wanted, max(least, wanted)


def all_orders(node: dict[str, Any]) -> list[Any] | None:
    """Every array, where an array must hold different items and these are few constants."""
    items = node.get("items")
    values = items.get("enum") if isinstance(items, dict) and items.keys() <= {"enum", "type"} else None
    if node.get("uniqueItems") is not True or not isinstance(values, list):
        return None
    different = {json.dumps(value, sort_keys=True): value for value in values}
    if len(different) > 4 or len(different) < len(values):
        return None
    least, most = node.get("minItems", 0), node.get("maxItems", len(values))
    sizes = (
        range(least, min(most, len(values)) + 1) if isinstance(least, int) and isinstance(most, int) else ()
    )
    return [list(chosen) for size in sizes for chosen in itertools.permutations(values, size)]
