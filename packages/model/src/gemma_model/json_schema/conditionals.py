"""Rewrites conditional keywords into choices between cases.

JSON Schema 2020-12: ``if``, ``then``, ``else`` and ``dependentSchemas`` (Core 10.2.2), ``dependentRequired``
(Validation 6.5.4). ``dependencies`` is from draft 7 and older.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gemma_model.json_schema.composition import any_of
from gemma_model.json_schema.document import Schema, SchemaLocation
from gemma_model.json_schema.negation import ANNOTATIONS, has_reference, negate
from gemma_model.json_schema.rewrite_context import RewriteContext, conjunction, get_array, get_object

MAX_CONDITIONS = 4
"""Maximum number of independent conditions: each doubles the number of cases."""
_CONDITION_KEYWORDS = ANNOTATIONS | {"if", "then", "else"}


@dataclass(frozen=True)
class Condition:
    """The subschemas of ``if``, ``then`` and ``else``.

    Args:
        test: the subschema of ``if``.
        then: of ``then``; ``True`` if there is none.
        otherwise: of ``else``; ``True`` if there is none.
        location: of the schema that has these keywords.
    """

    test: Any
    then: Any
    otherwise: Any
    location: SchemaLocation

    @property
    def property_test(self) -> tuple[str, list[Any], bool] | None:
        """If only one property is compared: its name, the constants, and whether it is required."""
        allowed = ANNOTATIONS | {"properties", "required", "type"}
        if not isinstance(self.test, dict) or self.test.keys() - allowed:
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
        plain = not schema.keys() - ANNOTATIONS - {"const", "enum", "type"}
        return (name, values, bool(required)) if plain and isinstance(values, list) else None


def conditions_of(
    node: dict[str, Any], location: SchemaLocation
) -> tuple[list[Condition], list[tuple[int, Any]]]:
    """The conditions of a schema and of its ``allOf``, and the other subschemas of ``allOf`` by index."""
    conditions, rest = [], []
    if "if" in node:
        conditions.append(_condition(node, location))
    for i, subschema in enumerate(get_array(node, "allOf", location)):
        if isinstance(subschema, dict) and "if" in subschema and not subschema.keys() - _CONDITION_KEYWORDS:
            conditions.append(_condition(subschema, location.in_place("allOf", i)))
        else:
            rest.append((i, subschema))
    return conditions, rest


def _condition(node: dict[str, Any], location: SchemaLocation) -> Condition:
    return Condition(node["if"], node.get("then", True), node.get("else", True), location)


def rewrite_conditions(
    context: RewriteContext, node: dict[str, Any], conditions: list[Condition]
) -> Iterator[Schema]:
    """Rewrite conditions into choices between cases: one choice for all that compare the same property.

    Args:
        context: shared by all keywords of the document.
        node: the schema that has the conditions.
        conditions: see ``conditions_of``.

    Raises:
        NotEnforceable: the schema is strict, and keywords cannot express the negation of a condition.
    """
    by_property: dict[str, list[Condition]] = {}
    others: list[Condition] = []
    for condition in conditions:
        property_test = condition.property_test
        (by_property.setdefault(property_test[0], []) if property_test else others).append(condition)
    for name, group in by_property.items():
        yield any_of(_property_cases(context, node, name, group))
    for i, condition in enumerate(others):
        yield _then_or_else(context, condition, i < MAX_CONDITIONS)


def _property_cases(
    context: RewriteContext, node: dict[str, Any], name: str, group: list[Condition]
) -> Iterator[Schema]:
    """A case for each constant, one for all other values, and one for an absent property."""
    tests = [condition.property_test or (name, [], False) for condition in group]
    values = {json.dumps(value, sort_keys=True): value for test in tests for value in test[1]}
    location = group[0].location
    for key, value in values.items():
        holds = [any(json.dumps(v, sort_keys=True) == key for v in test[1]) for test in tests]
        equal = {"properties": {name: {"const": value}}, "required": [name]}
        yield _property_case(context, equal, group, holds)
    others = _other_values(node, name, list(values.values()))
    if others is None:
        context.unenforced.leave_out("if", location.path)
        others = True
    if others is not False:
        rest = {"properties": {name: others}, "required": [name]}
        yield _property_case(context, rest, group, [False] * len(group))
    if name not in node.get("required", []):
        yield _property_case(context, {"properties": {name: False}}, group, [not test[2] for test in tests])


def _property_case(
    context: RewriteContext, base: dict[str, Any], group: list[Condition], holds: list[bool]
) -> Schema:
    location = group[0].location
    subschemas = [context.rewrite(base, location.in_place("if"))]
    for condition, met in zip(group, holds, strict=True):
        keyword, consequence = ("then", condition.then) if met else ("else", condition.otherwise)
        subschemas.append(context.rewrite(consequence, condition.location.in_place(keyword)))
    return conjunction(subschemas)


def _other_values(node: dict[str, Any], name: str, values: list[Any]) -> Schema | None:
    """A schema for the values of a property that are not in ``values``; ``None`` if not expressible."""
    properties = node.get("properties")
    own = properties.get(name) if isinstance(properties, dict) else None
    if isinstance(own, dict) and ("const" in own or isinstance(own.get("enum"), list)):
        left = [value for value in own.get("enum", [own.get("const")]) if value not in values]
        return {"enum": left} if left else False
    if isinstance(own, dict) and own.get("type") == "boolean":
        left = [value for value in (True, False) if value not in values]
        return {"enum": left} if left else False
    return negate({"enum": values})


def _then_or_else(context: RewriteContext, condition: Condition, few: bool) -> Schema:
    negation = negate(condition.test) if few else None
    location = condition.location
    if negation is None or (context.unenforced.strict and has_reference(condition.test)):
        context.unenforced.leave_out(
            "if", location.path, "cannot be enforced: its negation cannot be expressed"
        )
        return True
    cases = (
        (condition.test, condition.then, "then"),
        (negation, condition.otherwise, "else"),
    )
    return any_of(
        conjunction(
            (
                context.rewrite(test, location.in_place("if")),
                context.rewrite(result, location.in_place(keyword)),
            )
        )
        for test, result, keyword in cases
    )


def rewrite_dependencies(
    context: RewriteContext, node: dict[str, Any], location: SchemaLocation
) -> Iterator[Schema]:
    """Rewrite dependencies into choices: either a property is absent, or its dependency is met.

    Args:
        context: shared by all keywords of the document.
        node: the schema that has the keywords.
        location: of the schema.

    Raises:
        SchemaError: a keyword has an invalid value, or cannot be enforced and the schema is strict.
    """
    dependencies: dict[frozenset[str], set[str]] = {}
    for keyword in ("dependentRequired", "dependencies", "dependentSchemas"):
        for name, given in get_object(node, keyword, location).items():
            dependency = [given] if isinstance(given, str) else given  # a string in draft 3
            if isinstance(dependency, list):
                dependencies.setdefault(frozenset(map(str, dependency)), set()).add(name)
                continue
            with_it = context.rewrite(dependency, location.in_place(keyword, name))
            yield any_of(({"properties": {name: False}}, conjunction(({"required": [name]}, with_it))))
    for i, (required, dependents) in enumerate(_group_dependencies(dependencies)):
        if i >= MAX_CONDITIONS:
            context.unenforced.leave_out("dependentRequired", location.path)
            return
        without: Schema = {"properties": dict.fromkeys(sorted(dependents), False)}
        yield any_of((without, {"required": sorted(required)}))


def _group_dependencies(
    dependencies: dict[frozenset[str], set[str]],
) -> list[tuple[frozenset[str], set[str]]]:
    """Merge the properties that require each other into one group."""
    groups = {required | dependents: set[str]() for required, dependents in dependencies.items()}
    for required, dependents in dependencies.items():
        groups[required | dependents] |= dependents
    same = [(required, dependents) for required, dependents in groups.items() if required == dependents]
    rest = [(n, h) for n, h in dependencies.items() if not any(h <= dependents for _, dependents in same)]
    return [*((frozenset(required), dependents) for required, dependents in same), *rest]
