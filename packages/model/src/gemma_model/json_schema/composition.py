"""Rewrites ``anyOf``, ``oneOf`` and ``not`` (JSON Schema 2020-12, Core 10.2.1).

``allOf`` is rewritten by ``rewrite``.
"""

from collections.abc import Iterable
from typing import Any

from gemma_model.json_schema.disjointness import allows_type, disjoint, required_names
from gemma_model.json_schema.document import Schema, SchemaLocation, Subschema
from gemma_model.json_schema.errors import NotEnforceable, SchemaError
from gemma_model.json_schema.negation import has_reference, negate
from gemma_model.json_schema.rewrite_context import RewriteContext, conjunction, get_array

MAX_ONE_OF_SCHEMAS = 200
"""Maximum number of subschemas of a ``oneOf``: every pair of them is compared."""


class InfiniteRecursion(SchemaError):
    """A reference leads back to its own schema for the same instance (JSON Schema 2020-12, Core 9.4.1)."""


def rewrite_any_of_one_of(
    context: RewriteContext, node: dict[str, Any], location: SchemaLocation, keyword: str
) -> Schema:
    """Rewrite ``anyOf`` or ``oneOf`` into ``anyOf``; subschemas of ``oneOf`` must exclude each other.

    If the schema is strict, subschemas that cannot be enforced are removed, unless none would remain.

    Args:
        context: shared by all keywords of the document.
        node: the schema with the keyword.
        location: of the schema.
        keyword: ``anyOf`` or ``oneOf``.

    Raises:
        SchemaError: the keyword has an invalid value, or cannot be enforced and the schema is strict.
    """
    nodes = get_array(node, keyword, location)
    exclusions: list[Schema | None] = [True] * len(nodes)
    if keyword == "oneOf":
        exclusions = _exclusions(context, node, nodes, location)
    if None in exclusions and not (
        context.unenforced.strict and any(exclusion is not None for exclusion in exclusions)
    ):
        context.unenforced.leave_out("oneOf", location.path, "cannot be enforced: its schemas may overlap")
        exclusions = [True if exclusion is None else exclusion for exclusion in exclusions]
    options: list[Schema] = []
    first_error: SchemaError | None = None
    for i, exclusion in enumerate(exclusions):
        if exclusion is None:
            continue
        try:
            options.append(conjunction((context.rewrite(nodes[i], location.in_place(keyword, i)), exclusion)))
        except (NotEnforceable, InfiniteRecursion) as error:
            first_error = first_error or error
    if first_error is not None and not any(option is not False for option in options):
        raise first_error
    return any_of(options)


def any_of(options: Iterable[Schema]) -> Schema:
    """A schema that allows every instance that is valid for at least one of the schemas."""
    kept: list[Schema] = []
    for option in options:
        if option is True:
            return True
        if option is not False and option not in kept:
            kept.append(option)
    if len(kept) == 1:
        return kept[0]
    return {"anyOf": kept} if kept else False


def _exclusions(
    context: RewriteContext, node: dict[str, Any], nodes: list[Any], location: SchemaLocation
) -> list[Schema | None]:
    """For each subschema of a ``oneOf``: a schema that excludes the instances of all others, or ``None``."""
    if len(nodes) > MAX_ONE_OF_SCHEMAS:
        return [None] * len(nodes)
    shared_keywords = {keyword: node[keyword] for keyword in ("type", "required") if keyword in node}
    candidates = [
        ({"allOf": [schema, shared_keywords]} if shared_keywords else schema, location) for schema in nodes
    ]
    return [
        _exclusion(context, first, [other for j, other in enumerate(candidates) if j != i])
        for i, first in enumerate(candidates)
    ]


def _exclusion(context: RewriteContext, first: Subschema, others: list[Subschema]) -> Schema | None:
    closed = context.unenforced.strict and not first[1].merged
    own = required_names(context.doc, *first)
    subschemas: list[Schema] = []
    for other in others:
        if disjoint(context.doc, first, other, closed):
            continue
        without = sorted(required_names(context.doc, *other) - own)
        if not without or not allows_type(other[0], "object"):
            return None
        subschemas.append({"type": "object", "properties": {without[0]: False}})
    return conjunction(subschemas)


def rewrite_not(context: RewriteContext, node: dict[str, Any], location: SchemaLocation) -> Schema:
    """Rewrite ``not`` into the negation of its subschema.

    Args:
        context: shared by all keywords of the document.
        node: the schema with the keyword.
        location: of the schema.

    Raises:
        NotEnforceable: the schema is strict, and keywords cannot express the negation.
    """
    negation = None if has_reference(node["not"]) else negate(node["not"])
    if negation is None:
        context.unenforced.leave_out("not", location.path)
        return True
    return context.rewrite(negation, location.in_place("not"))
