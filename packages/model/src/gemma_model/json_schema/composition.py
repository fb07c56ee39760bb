"""Composition keywords: ``anyOf``, ``oneOf`` and ``not``. ``allOf`` is merged by ``rewrite``."""

from collections.abc import Iterable
from typing import Any

from gemma_model.json_schema.disjointness import disjoint, required_of, types_may_be
from gemma_model.json_schema.document import Schema, SchemaLocation
from gemma_model.json_schema.errors import NotEnforceable, SchemaError
from gemma_model.json_schema.negation import has_reference, negate
from gemma_model.json_schema.rewrite_context import RewriteContext, conjunction, listed

MOST_SCHEMAS = 200
"""Of a ``oneOf``; each is compared with each."""


class Endless(SchemaError):
    """A schema whose references lead back to it before any part of the value."""


def rewrite_any_of_one_of(
    context: RewriteContext, node: dict[str, Any], at: SchemaLocation, word: str
) -> Schema:
    """``anyOf``, and ``oneOf`` as far as no value fits two of its schemas.

    In a strict schema, what cannot be enforced is left out of the choice, as long as something is left.

    Raises:
        SchemaError: about a keyword that is wrong, or cannot be enforced in a strict schema.
    """
    nodes = listed(node, word, at)
    guards: list[Schema | None] = [True] * len(nodes)
    if word == "oneOf":
        guards = _guards(context, node, nodes, at)
    if None in guards and not (context.unenforced.strict and any(guard is not None for guard in guards)):
        context.unenforced.leave_out("oneOf", at.path, "cannot be enforced: its schemas may overlap")
        guards = [True if guard is None else guard for guard in guards]
    options: list[Schema] = []
    refusal: SchemaError | None = None
    for i, guard in enumerate(guards):
        if guard is None:
            continue
        try:
            options.append(conjunction((context.rewrite(nodes[i], at.beside(word, i)), guard)))
        except (NotEnforceable, Endless) as error:
            refusal = refusal or error
    if refusal is not None and not any(option is not False for option in options):
        raise refusal
    return any_of(options)


def any_of(options: Iterable[Schema]) -> Schema:
    """A schema that takes what one of these takes."""
    kept: list[Schema] = []
    for option in options:
        if option is True:
            return True
        if option is not False and option not in kept:
            kept.append(option)
    if len(kept) == 1:
        return kept[0]
    return {"anyOf": kept} if kept else False


def _guards(
    context: RewriteContext, node: dict[str, Any], nodes: list[Any], at: SchemaLocation
) -> list[Schema | None]:
    """For each schema of a ``oneOf``, what keeps its values from fitting another; nothing if unknown."""
    if len(nodes) > MOST_SCHEMAS:
        return [None] * len(nodes)
    held = {word: node[word] for word in ("type", "required") if word in node}
    there = [({"allOf": [schema, held]} if held else schema, at) for schema in nodes]
    return [
        _guard(context, one, [other for j, other in enumerate(there) if j != i])
        for i, one in enumerate(there)
    ]


def _guard(
    context: RewriteContext, one: tuple[Any, SchemaLocation], others: list[tuple[Any, SchemaLocation]]
) -> Schema | None:
    closed = context.unenforced.strict and not one[1].merged
    own = required_of(context.doc, *one)
    parts: list[Schema] = []
    for other in others:
        if disjoint(context.doc, one, other, closed):
            continue
        without = sorted(required_of(context.doc, *other) - own)
        if not without or not types_may_be(other[0], "object"):
            return None
        parts.append({"type": "object", "properties": {without[0]: False}})
    return conjunction(parts)


def rewrite_not(context: RewriteContext, node: dict[str, Any], at: SchemaLocation) -> Schema:
    """``not``, where its opposite can be said.

    Raises:
        NotEnforceable: in a strict schema, where it cannot.
    """
    opposite = None if has_reference(node["not"]) else negate(node["not"])
    if opposite is None:
        context.unenforced.leave_out("not", at.path)
        return True
    return context.rewrite(opposite, at.beside("not"))
