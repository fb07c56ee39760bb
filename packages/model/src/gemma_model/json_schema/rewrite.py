"""Rewrites a client's JSON schema into one that llguidance enforces correctly.

Every instance that is valid for the result is valid for the client's schema, except for the keywords that are
reported as not enforced. A strict schema with such a keyword is refused. Annotations are removed. The targets
of references are in ``$defs`` of the result.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gemma_model.json_schema.arrays import ARRAY_KEYWORDS, rewrite_array, unique_arrays
from gemma_model.json_schema.composition import InfiniteRecursion, rewrite_any_of_one_of, rewrite_not
from gemma_model.json_schema.conditionals import conditions_of, rewrite_conditions, rewrite_dependencies
from gemma_model.json_schema.document import TYPES, Document, Schema, SchemaLocation, is_local
from gemma_model.json_schema.errors import SchemaError
from gemma_model.json_schema.numbers import NUMBER_KEYWORDS, is_exact, rewrite_numbers
from gemma_model.json_schema.objects import disallow_other_properties, rewrite_object, rewrite_property_counts
from gemma_model.json_schema.property_names import (
    ALL_OBJECT_KEYWORDS,
    OBJECT_KEYWORDS,
    known_property_names,
    lists_properties,
)
from gemma_model.json_schema.rewrite_context import RewriteContext, conjunction, get_array
from gemma_model.json_schema.strings import STRING_KEYWORDS, rewrite_string
from gemma_model.json_schema.unenforced_keywords import UnenforcedKeywords


@dataclass(frozen=True)
class Rewritten:
    """A schema for the grammar library.

    Args:
        schema: the enforced schema.
        unenforced: keywords that are not enforced, with the path of the first occurrence of each.
    """

    schema: Schema
    unenforced: dict[str, tuple[str | int, ...]]


def rewrite(
    schema: Any, strict: bool, grammar_error: Callable[[Schema], str], structure_only: bool = False
) -> Rewritten:
    """Rewrite a schema; see the description of the module.

    Args:
        schema: the client's schema.
        strict: refuse keywords that cannot be enforced. Objects with ``properties`` allow no others.
        grammar_error: returns the error of the grammar library for a schema; empty if there is none.
        structure_only: keep only types, properties, items and constants.

    Raises:
        SchemaError: the schema or one of its keywords is invalid.
        NotEnforceable: the schema is strict, and a keyword cannot be enforced.
    """
    unenforced = UnenforcedKeywords(strict)
    rewriter = _Rewriter(Document(schema), unenforced, grammar_error, structure_only)
    return Rewritten(rewriter.rewrite_root(schema), unenforced.keywords)


class _Rewriter:
    def __init__(
        self,
        doc: Document,
        unenforced: UnenforcedKeywords,
        grammar_error: Callable[[Schema], str],
        structure_only: bool,
    ) -> None:
        self._context = RewriteContext(doc, unenforced, self._rewrite, grammar_error, structure_only)
        self._definition_names: dict[tuple[int, bool], str] = {}
        self._definitions: dict[str, Schema] = {}

    def rewrite_root(self, schema: Any) -> Schema:
        rewritten = self._rewrite(schema, self._context.doc.root)
        if isinstance(rewritten, bool) or not self._definitions:
            return rewritten
        return {**rewritten, "$defs": self._definitions}

    def _rewrite(self, node: Any, location: SchemaLocation) -> Schema:
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            raise SchemaError("", location.path, "is not a schema, which is an object or a boolean")
        location = self._context.doc.enter_resource(node, location)
        if "$ref" in node and self._context.doc.ref_siblings_ignored:
            node = {"$ref": node["$ref"]}
        if is_local(node.get(dynamic := "$dynamicRef")) and not self._context.doc.resolve(
            node, location, dynamic
        ):
            raise SchemaError(
                dynamic, location.path, f"is {node[dynamic][:100]!r}, which is not part of the schema"
            )
        inner_location = replace(location, merged=location.merged or _has_several_schemas(node))
        if (arrays := unique_arrays(node)) is not None:
            return {"enum": arrays}
        own = self._rewrite_own_keywords(node, location)
        if not location.merged and not self._context.structure_only:
            self._close(node, own, location)
        subschemas = rewrite_property_counts(self._context, node, location, own)
        subschemas += self._rewrite_in_place_applicators(node, inner_location)
        return conjunction((own, *_with_object_type(own, subschemas)))

    def _rewrite_own_keywords(self, node: dict[str, Any], location: SchemaLocation) -> dict[str, Any]:
        """Rewrite the keywords that do not apply a subschema to the same instance."""
        types = self._types(node, location)
        own: dict[str, Any] = {"type": types[0] if len(types) == 1 else types} if types else {}
        allowed_types = frozenset(types or TYPES)
        if "object" in allowed_types and not node.keys().isdisjoint(OBJECT_KEYWORDS):
            own |= rewrite_object(self._context, node, location)
        if "array" in allowed_types and not node.keys().isdisjoint(ARRAY_KEYWORDS):
            own |= rewrite_array(self._context, node, location)
        if "string" in allowed_types and not node.keys().isdisjoint(STRING_KEYWORDS):
            own |= rewrite_string(self._context, node, location)
        bounds = node.keys() & set(NUMBER_KEYWORDS) if allowed_types & {"number", "integer"} else set()
        if bounds and not self._context.skips(min(bounds), location):
            own |= rewrite_numbers(
                node, "number" not in allowed_types, self._context.unenforced, location.path
            )
        return own | self._constants(node, location)

    def _types(self, node: dict[str, Any], location: SchemaLocation) -> list[str]:
        named = node.get("type", [])
        names = named if isinstance(named, list) else [named]
        for name in names:
            if name not in TYPES:
                raise SchemaError(
                    "type", location.path, f"is {name!r}; the valid types are {', '.join(TYPES)}"
                )
        return list(dict.fromkeys(names))

    def _constants(self, node: dict[str, Any], location: SchemaLocation) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        if "const" in node and self._is_exact(node["const"], "const", location):
            kept["const"] = node["const"]
        if "enum" in node:
            values = get_array(node, "enum", location)
            if not values:
                raise SchemaError("enum", location.path, "is empty")
            exact = [value for value in values if is_exact(value)]
            if exact or self._is_exact(values, "enum", location):
                kept["enum"] = exact
        return kept

    def _is_exact(self, value: Any, keyword: str, location: SchemaLocation) -> bool:
        if not is_exact(value):
            self._context.unenforced.leave_out(
                keyword, location.path, "has a number that is too large or too small"
            )
            return False
        return True

    def _rewrite_in_place_applicators(self, node: dict[str, Any], location: SchemaLocation) -> list[Schema]:
        """The rewritten subschemas for the same instance, in the order of their keywords."""
        conditions, all_of = conditions_of(node, location)
        subschemas: list[Schema] = []
        for keyword in node:
            if keyword == "$ref":
                subschemas.append(self._reference(node, location))
            elif keyword == "allOf":
                subschemas += [
                    self._rewrite(subschema, location.in_place("allOf", i)) for i, subschema in all_of
                ]
            elif keyword in ("anyOf", "oneOf"):
                subschemas.append(rewrite_any_of_one_of(self._context, node, location, keyword))
            elif keyword == "not" and not self._context.skips("not", location):
                subschemas.append(rewrite_not(self._context, node, location))
        if conditions and not self._context.skips("if", location):
            subschemas += rewrite_conditions(self._context, node, conditions)
        if node.keys() & _DEPENDENCY_KEYWORDS and not self._context.skips("dependentRequired", location):
            subschemas += rewrite_dependencies(self._context, node, location)
        return subschemas

    def _reference(self, node: dict[str, Any], location: SchemaLocation) -> Schema:
        if not isinstance(node["$ref"], str):
            raise SchemaError("$ref", location.path, "is not a string")
        found = self._context.doc.resolve(node, location)
        if found is None:
            reason = f"is {node['$ref'][:100]!r}, which is not part of the schema"
            if is_local(node["$ref"]):
                raise SchemaError("$ref", location.path, reason)
            self._context.unenforced.leave_out("$ref", location.path, reason)
            return True
        target, target_location = found
        if id(target) in target_location.enclosing_targets:
            raise InfiniteRecursion(
                "$ref", location.path, "refers to itself for the same value: infinite recursion"
            )
        key = (id(target), location.merged)
        if key not in self._definition_names:
            name = self._definition_names[key] = f"d{len(self._definition_names)}"
            enclosing_targets = target_location.enclosing_targets | {id(target)}
            try:
                self._definitions[name] = self._rewrite(
                    target, replace(target_location, enclosing_targets=enclosing_targets)
                )
            except SchemaError:
                del self._definition_names[key]
                raise
        name = self._definition_names[key]
        rewritten = self._definitions.get(name)
        return rewritten if isinstance(rewritten, bool) else {"$ref": f"#/$defs/{name}"}

    def _close(self, node: dict[str, Any], own: dict[str, Any], location: SchemaLocation) -> None:
        """Exclude all other properties if the schema is strict or has ``unevaluatedProperties: false``."""
        doc = self._context.doc
        if "unevaluatedProperties" in node and "additionalProperties" not in node:
            rest = {keyword: value for keyword, value in node.items() if keyword != "unevaluatedProperties"}
            conditional = node.keys() & _CONDITIONAL_APPLICATORS
            names = None if conditional else known_property_names(doc, rest, location)
            if node["unevaluatedProperties"] is False and names is not None:
                disallow_other_properties(own, names)
            elif node["unevaluatedProperties"] is not True:
                self._context.unenforced.leave_out("unevaluatedProperties", location.path)
        elif self._context.unenforced.strict and self._lists_properties(node, own, location):
            known = known_property_names(doc, node, location)
            if known is not None:
                disallow_other_properties(own, known)

    def _lists_properties(self, node: dict[str, Any], own: dict[str, Any], location: SchemaLocation) -> bool:
        """Whether the schema allows objects and lists their properties, itself or in a subschema."""
        if "properties" not in node and not _has_several_schemas(node):
            return False
        return "object" in own.get("type", TYPES) and lists_properties(self._context.doc, node, location)


_DEPENDENCY_KEYWORDS = {"dependentRequired", "dependentSchemas", "dependencies"}
_CONDITIONAL_APPLICATORS = _DEPENDENCY_KEYWORDS | {"anyOf", "oneOf", "if"}


def _has_several_schemas(node: dict[str, Any]) -> bool:
    """Whether several schemas apply to the same instance and may constrain its properties."""
    all_of = node.get("allOf")
    in_place = sum(
        keyword in node for keyword in ("$ref", "anyOf", "oneOf", "if", "not", *_DEPENDENCY_KEYWORDS)
    )
    in_place += len(all_of) if isinstance(all_of, list) else 0
    return in_place > 1 or (in_place == 1 and not node.keys().isdisjoint(ALL_OBJECT_KEYWORDS))


def _with_object_type(own: dict[str, Any], subschemas: list[Schema]) -> list[Schema]:
    """Add ``type`` to the subschemas that have only keywords for objects, if the instance is an object."""
    if own.get("type") != "object":
        return subschemas
    return [_add_object_type(subschema) for subschema in subschemas]


def _add_object_type(subschema: Schema) -> Schema:
    if isinstance(subschema, bool) or "type" in subschema or "$ref" in subschema:
        return subschema
    if subschema.keys() == {"anyOf"}:
        return {"anyOf": [_add_object_type(option) for option in subschema["anyOf"]]}
    return {"type": "object", **subschema} if subschema.keys() <= ALL_OBJECT_KEYWORDS else subschema
