"""Rewrites a client's JSON schema into one that llguidance enforces correctly.

Whatever fits the result fits the schema, except for the keywords that are reported as not enforced. A strict
schema with such a keyword is refused. Annotations are dropped. References lead to ``$defs`` of the result.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gemma_model.json_schema.arrays import ABOUT_ARRAYS, all_orders, rewrite_array
from gemma_model.json_schema.composition import Endless, rewrite_any_of_one_of, rewrite_not
from gemma_model.json_schema.conditionals import conditions_of, rewrite_conditions, rewrite_dependencies
from gemma_model.json_schema.document import TYPES, Document, Schema, SchemaLocation, is_local
from gemma_model.json_schema.errors import SchemaError
from gemma_model.json_schema.numbers import BOUNDS, exactly, rewrite_numbers
from gemma_model.json_schema.objects import close, counted, rewrite_object
from gemma_model.json_schema.property_names import ABOUT_OBJECTS, OF_OBJECTS, known_names, names_properties
from gemma_model.json_schema.rewrite_context import RewriteContext, conjunction, listed
from gemma_model.json_schema.strings import ABOUT_STRINGS, rewrite_string
from gemma_model.json_schema.unenforced_keywords import UnenforcedKeywords


@dataclass(frozen=True)
class Rewritten:
    """A schema for the grammar library.

    Args:
        schema: what is enforced.
        unenforced: keywords that are not, and where the first of each stands.
    """

    schema: Schema
    unenforced: dict[str, tuple[str | int, ...]]


def rewrite(
    schema: Any, strict: bool, grammar_error: Callable[[Schema], str], structure_only: bool = False
) -> Rewritten:
    """See the module.

    Args:
        schema: the client's.
        strict: refuse what cannot be enforced; objects that list their properties take no others.
        grammar_error: of the grammar library about a schema; empty when there is none.
        structure_only: keep types, properties, items and constants alone.

    Raises:
        SchemaError: when it is no schema.
        NotEnforceable: naming a keyword that cannot be enforced, when ``strict``.
    """
    unenforced = UnenforcedKeywords(strict)
    writer = _Writer(Document(schema), unenforced, grammar_error, structure_only)
    return Rewritten(writer.whole(schema), unenforced.keywords)


class _Writer:
    def __init__(
        self,
        doc: Document,
        unenforced: UnenforcedKeywords,
        grammar_error: Callable[[Schema], str],
        structure_only: bool,
    ) -> None:
        self._context = RewriteContext(doc, unenforced, self._rewrite, grammar_error, structure_only)
        self._names: dict[tuple[int, bool], str] = {}
        self._definitions: dict[str, Schema] = {}

    def whole(self, schema: Any) -> Schema:
        written = self._rewrite(schema, self._context.doc.root)
        if isinstance(written, bool) or not self._definitions:
            return written
        return {**written, "$defs": self._definitions}

    def _rewrite(self, node: Any, at: SchemaLocation) -> Schema:
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            raise SchemaError("", at.path, "is not a schema, which is an object or a boolean")
        at = self._context.doc.enter(node, at)
        if "$ref" in node and self._context.doc.ref_stands_alone:
            node = {"$ref": node["$ref"]}
        if is_local(node.get(dynamic := "$dynamicRef")) and not self._context.doc.follow(node, at, dynamic):
            raise SchemaError(
                dynamic, at.path, f"is {node[dynamic][:100]!r}, which is not part of the schema"
            )
        inner = replace(at, merged=at.merged or _meets_others(node))
        if (orders := all_orders(node)) is not None:
            return {"enum": orders}
        own = self._own(node, at)
        if not at.merged and not self._context.structure_only:
            self._close(node, own, at)
        parts = counted(self._context, node, at, own)
        parts += self._beside(node, inner)
        return conjunction((own, *_typed(own, parts)))

    def _own(self, node: dict[str, Any], at: SchemaLocation) -> dict[str, Any]:
        """Everything that no other schema about the same value says."""
        types = self._types(node, at)
        own: dict[str, Any] = {"type": types[0] if len(types) == 1 else types} if types else {}
        may_be = frozenset(types or TYPES)
        if "object" in may_be and not node.keys().isdisjoint(ABOUT_OBJECTS):
            own |= rewrite_object(self._context, node, at)
        if "array" in may_be and not node.keys().isdisjoint(ABOUT_ARRAYS):
            own |= rewrite_array(self._context, node, at)
        if "string" in may_be and not node.keys().isdisjoint(ABOUT_STRINGS):
            own |= rewrite_string(self._context, node, at)
        bounds = node.keys() & set(BOUNDS) if may_be & {"number", "integer"} else set()
        if bounds and not self._context.skips(min(bounds), at):
            own |= rewrite_numbers(node, "number" not in may_be, self._context.unenforced, at.path)
        return own | self._constants(node, at)

    def _types(self, node: dict[str, Any], at: SchemaLocation) -> list[str]:
        named = node.get("type", [])
        names = named if isinstance(named, list) else [named]
        for name in names:
            if name not in TYPES:
                raise SchemaError("type", at.path, f"is {name!r}; the valid types are {', '.join(TYPES)}")
        return list(dict.fromkeys(names))

    def _constants(self, node: dict[str, Any], at: SchemaLocation) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        if "const" in node and self._is_exact(node["const"], "const", at):
            kept["const"] = node["const"]
        if "enum" in node:
            values = listed(node, "enum", at)
            if not values:
                raise SchemaError("enum", at.path, "is empty")
            exact = [value for value in values if exactly(value)]
            if exact or self._is_exact(values, "enum", at):
                kept["enum"] = exact
        return kept

    def _is_exact(self, value: Any, word: str, at: SchemaLocation) -> bool:
        if not exactly(value):
            self._context.unenforced.leave_out(word, at.path, "has a number that is too large or too small")
            return False
        return True

    def _beside(self, node: dict[str, Any], at: SchemaLocation) -> list[Schema]:
        """The other schemas about the same value, in the order in which they stand there."""
        conditions, all_of = conditions_of(node, at)
        parts: list[Schema] = []
        for word in node:
            if word == "$ref":
                parts.append(self._reference(node, at))
            elif word == "allOf":
                parts += [self._rewrite(part, at.beside("allOf", i)) for i, part in all_of]
            elif word in ("anyOf", "oneOf"):
                parts.append(rewrite_any_of_one_of(self._context, node, at, word))
            elif word == "not" and not self._context.skips("not", at):
                parts.append(rewrite_not(self._context, node, at))
        if conditions and not self._context.skips("if", at):
            parts += rewrite_conditions(self._context, node, conditions)
        if node.keys() & _DEPENDENT and not self._context.skips("dependentRequired", at):
            parts += rewrite_dependencies(self._context, node, at)
        return parts

    def _reference(self, node: dict[str, Any], at: SchemaLocation) -> Schema:
        if not isinstance(node["$ref"], str):
            raise SchemaError("$ref", at.path, "is not a string")
        found = self._context.doc.follow(node, at)
        if found is None:
            reason = f"is {node['$ref'][:100]!r}, which is not part of the schema"
            if is_local(node["$ref"]):
                raise SchemaError("$ref", at.path, reason)
            self._context.unenforced.leave_out("$ref", at.path, reason)
            return True
        target, there = found
        if id(target) in there.within:
            raise Endless("$ref", at.path, "refers to itself without an end")
        key = (id(target), at.merged)
        if key not in self._names:
            self._names[key] = f"d{len(self._names)}"
            try:
                there = replace(there, within=there.within | {id(target)})
                self._definitions[self._names[key]] = self._rewrite(target, there)
            except SchemaError:
                del self._names[key]
                raise
        written = self._definitions.get(self._names[key])
        return written if isinstance(written, bool) else {"$ref": f"#/$defs/{self._names[key]}"}

    def _close(self, node: dict[str, Any], own: dict[str, Any], at: SchemaLocation) -> None:
        """Take no unnamed properties: where strict, or where the schema says that none are left."""
        doc = self._context.doc
        if "unevaluatedProperties" in node and "additionalProperties" not in node:
            rest = {word: value for word, value in node.items() if word != "unevaluatedProperties"}
            names = None if node.keys() & _CHOICES else known_names(doc, rest, at)
            if node["unevaluatedProperties"] is False and names is not None:
                close(own, names)
            elif node["unevaluatedProperties"] is not True:
                self._context.unenforced.leave_out("unevaluatedProperties", at.path)
        elif self._context.unenforced.strict and self._lists_properties(node, own, at):
            known = known_names(doc, node, at)
            if known is not None:
                close(own, known)

    def _lists_properties(self, node: dict[str, Any], own: dict[str, Any], at: SchemaLocation) -> bool:
        """Whether it, or what it meets, is about objects and lists their properties."""
        listing = "properties" in node or _meets_others(node)
        return (
            listing and "object" in own.get("type", TYPES) and names_properties(self._context.doc, node, at)
        )


_DEPENDENT = {"dependentRequired", "dependentSchemas", "dependencies"}
_CHOICES = _DEPENDENT | {"anyOf", "oneOf", "if"}


def _meets_others(node: dict[str, Any]) -> bool:
    """Whether several schemas are about the same value, one of them perhaps about objects."""
    all_of = node.get("allOf")
    beside = sum(word in node for word in ("$ref", "anyOf", "oneOf", "if", "not", *_DEPENDENT))
    beside += len(all_of) if isinstance(all_of, list) else 0
    return beside > 1 or (beside == 1 and not node.keys().isdisjoint(OF_OBJECTS))


def _typed(own: dict[str, Any], parts: list[Schema]) -> list[Schema]:
    """The parts, where they are about objects only and the type is known."""
    if own.get("type") != "object":
        return parts
    return [_as_object(part) for part in parts]


def _as_object(part: Schema) -> Schema:
    if isinstance(part, bool) or "type" in part or "$ref" in part:
        return part
    if part.keys() == {"anyOf"}:
        return {"anyOf": [_as_object(option) for option in part["anyOf"]]}
    return {"type": "object", **part} if part.keys() <= OF_OBJECTS else part
