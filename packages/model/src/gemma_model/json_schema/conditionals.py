"""Conditional keywords: ``if``, ``then``, ``else``, ``dependentRequired`` and ``dependentSchemas``."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gemma_model.json_schema.composition import any_of
from gemma_model.json_schema.document import Schema, SchemaLocation
from gemma_model.json_schema.negation import NOTES, has_reference, negate
from gemma_model.json_schema.rewrite_context import RewriteContext, conjunction, listed, mapping

MOST_CONDITIONS = 4
"""Conditions that have nothing to do with each other; each doubles the number of cases."""


@dataclass(frozen=True)
class Condition:
    """``if``, ``then`` and ``else``, and where they stand."""

    test: Any
    then: Any
    otherwise: Any
    at: SchemaLocation

    @property
    def tested(self) -> tuple[str, list[Any], bool] | None:
        """The property that is compared, with which constants, and whether it must be there."""
        if not isinstance(self.test, dict) or self.test.keys() - NOTES - {"properties", "required", "type"}:
            return None
        properties, required = self.test.get("properties"), self.test.get("required", [])
        if (
            not isinstance(properties, dict)
            or len(properties) != 1
            or self.test.get("type", "object") != "object"
        ):
            return None
        ((name, schema),) = properties.items()
        if required not in ([], [name]) or not isinstance(schema, dict):
            return None
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        plain = not schema.keys() - NOTES - {"const", "enum", "type"}
        return (name, values, bool(required)) if plain and isinstance(values, list) else None


def conditions_of(node: dict[str, Any], at: SchemaLocation) -> tuple[list[Condition], list[tuple[int, Any]]]:
    """The conditions of a schema and of its ``allOf``, and what else stands there, with its place."""
    conditions, rest = [], []
    if "if" in node:
        conditions.append(Condition(node["if"], node.get("then", True), node.get("else", True), at))
    for i, part in enumerate(listed(node, "allOf", at)):
        if isinstance(part, dict) and "if" in part and not part.keys() - NOTES - {"if", "then", "else"}:
            there = at.beside("allOf", i)
            conditions.append(Condition(part["if"], part.get("then", True), part.get("else", True), there))
        else:
            rest.append((i, part))
    return conditions, rest


def rewrite_conditions(
    context: RewriteContext, node: dict[str, Any], conditions: list[Condition]
) -> Iterator[Schema]:
    """Conditions as choices between cases: together where they compare the same property.

    Raises:
        NotEnforceable: in a strict schema, when the opposite of a condition cannot be said.
    """
    switches: dict[str, list[Condition]] = {}
    others: list[Condition] = []
    for condition in conditions:
        tested = condition.tested
        (switches.setdefault(tested[0], []) if tested else others).append(condition)
    for name, group in switches.items():
        yield any_of(_switch(context, node, name, group))
    for i, condition in enumerate(others):
        yield _either(context, condition, i < MOST_CONDITIONS)


def _switch(
    context: RewriteContext, node: dict[str, Any], name: str, group: list[Condition]
) -> Iterator[Schema]:
    """A case for each constant, one for all other values, one for no value."""
    tests = [condition.tested or (name, [], False) for condition in group]
    values = {json.dumps(value, sort_keys=True): value for test in tests for value in test[1]}
    at = group[0].at
    for key, value in values.items():
        fits = [any(json.dumps(v, sort_keys=True) == key for v in test[1]) for test in tests]
        yield _case(context, {"properties": {name: {"const": value}}, "required": [name]}, group, fits)
    others = _others(node, name, list(values.values()))
    if others is None:
        context.unenforced.leave_out("if", at.path)
        others = True
    if others is not False:
        rest = {"properties": {name: others}, "required": [name]}
        yield _case(context, rest, group, [False] * len(group))
    if name not in node.get("required", []):
        yield _case(context, {"properties": {name: False}}, group, [not test[2] for test in tests])


def _case(context: RewriteContext, base: dict[str, Any], group: list[Condition], fits: list[bool]) -> Schema:
    at = group[0].at
    parts = [context.rewrite(base, at.beside("if"))]
    for condition, fit in zip(group, fits, strict=True):
        word, consequence = ("then", condition.then) if fit else ("else", condition.otherwise)
        parts.append(context.rewrite(consequence, condition.at.beside(word)))
    return conjunction(parts)


def _others(node: dict[str, Any], name: str, values: list[Any]) -> Schema | None:
    """What else a property may be."""
    properties = node.get("properties")
    own = properties.get(name) if isinstance(properties, dict) else None
    if isinstance(own, dict) and ("const" in own or isinstance(own.get("enum"), list)):
        left = [value for value in own.get("enum", [own.get("const")]) if value not in values]
        return {"enum": left} if left else False
    if isinstance(own, dict) and own.get("type") == "boolean":
        left = [value for value in (True, False) if value not in values]
        return {"enum": left} if left else False
    return negate({"enum": values})


def _either(context: RewriteContext, condition: Condition, few: bool) -> Schema:
    opposite = negate(condition.test) if few else None
    at = condition.at
    if opposite is None or (context.unenforced.strict and has_reference(condition.test)):
        context.unenforced.leave_out("if", at.path, "cannot be enforced: its negation cannot be expressed")
        return True
    cases = (
        (condition.test, condition.then, "then"),
        (opposite, condition.otherwise, "else"),
    )
    return any_of(
        conjunction((context.rewrite(test, at.beside("if")), context.rewrite(result, at.beside(word))))
        for test, result, word in cases
    )


def rewrite_dependencies(
    context: RewriteContext, node: dict[str, Any], at: SchemaLocation
) -> Iterator[Schema]:
    """``dependentRequired``, ``dependentSchemas`` and ``dependencies``: without a name or with its needs.

    Raises:
        SchemaError: about a keyword that is wrong, or cannot be enforced in a strict schema.
    """
    needs: dict[frozenset[str], set[str]] = {}
    for word in ("dependentRequired", "dependencies", "dependentSchemas"):
        for name, given in mapping(node, word, at).items():
            wanted = [given] if isinstance(given, str) else given  # a string, as draft 3 has it
            if isinstance(wanted, list):
                needs.setdefault(frozenset(map(str, wanted)), set()).add(name)
                continue
            with_it = context.rewrite(wanted, at.beside(word, name))
            yield any_of(({"properties": {name: False}}, conjunction(({"required": [name]}, with_it))))
    for i, (names, holders) in enumerate(_grouped(needs)):
        if i >= MOST_CONDITIONS:
            context.unenforced.leave_out("dependentRequired", at.path)
            return
        without: Schema = {"properties": dict.fromkeys(sorted(holders), False)}
        yield any_of((without, {"required": sorted(names)}))


def _grouped(needs: dict[frozenset[str], set[str]]) -> list[tuple[frozenset[str], set[str]]]:
    """Names that need each other are one group."""
    groups = {names | holders: set[str]() for names, holders in needs.items()}
    for names, holders in needs.items():
        groups[names | holders] |= holders
    same = [(names, holders) for names, holders in groups.items() if names == holders]
    rest = [(n, h) for n, h in needs.items() if not any(h <= holders for _, holders in same)]
    return [*((frozenset(names), holders) for names, holders in same), *rest]
