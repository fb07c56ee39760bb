"""A schema as a document: its dialect and its references. No reference is fetched from the network."""

from dataclasses import dataclass, replace
from typing import Any

import referencing
from jsonschema_specifications import REGISTRY as SPECIFICATIONS
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT4, DRAFT6, DRAFT7, DRAFT202012, specification_with

from gemma_model.json_schema.errors import Path

Schema = dict[str, Any] | bool
"""A schema as JSON."""
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_REF_SIBLINGS_IGNORED = (DRAFT4, DRAFT6, DRAFT7)
"""Dialects that ignore keywords next to ``$ref``."""

Resolver = Any


@dataclass(frozen=True)
class SchemaLocation:
    """The location of a schema or subschema.

    Args:
        path: from the root of the client's schema.
        resolver: resolves references relative to the base URI of this location.
        merged: other schemas apply to the same instance. The schema alone must not exclude properties that it
            does not name.
        enclosing_targets: ``id`` of each ``$ref`` target that is being rewritten for the same instance. A
            reference to one of them would recurse without end.
    """

    path: Path
    resolver: Resolver
    merged: bool = False
    enclosing_targets: frozenset[int] = frozenset()

    def child(self, *steps: str | int) -> "SchemaLocation":
        """The location of a subschema for a child instance: a property or an item."""
        return SchemaLocation((*self.path, *steps), self.resolver)

    def in_place(self, *steps: str | int) -> "SchemaLocation":
        """The location of a subschema for the same instance (JSON Schema 2020-12, Core 10.2)."""
        return replace(self, path=(*self.path, *steps))


Subschema = tuple[Any, SchemaLocation]
"""A schema in the document and its location."""


class Document:
    """The complete schema.

    Args:
        root: the client's schema.
    """

    def __init__(self, root: Any) -> None:
        resource = referencing.Resource.from_contents(root, default_specification=DRAFT202012)
        named = root.get("$schema") if isinstance(root, dict) else None
        known = specification_with(named, default=DRAFT202012) if isinstance(named, str) else DRAFT202012
        self._specification = known
        self.root = SchemaLocation(
            (), SPECIFICATIONS.with_resource("", resource).resolver_with_root(resource)
        )

    @property
    def ref_siblings_ignored(self) -> bool:
        """Whether the dialect ignores keywords next to ``$ref``."""
        return self._specification in _REF_SIBLINGS_IGNORED

    def enter_resource(self, node: dict[str, Any], location: SchemaLocation) -> SchemaLocation:
        """The location of a schema; with a base URI of its own if it has ``$id`` (Core 8.2.1)."""
        if not isinstance(node.get("$id", node.get("id")), str):
            return location
        subresource = self._specification.create_resource(node)
        return replace(location, resolver=location.resolver.in_subresource(subresource))

    def resolve(
        self, node: dict[str, Any], location: SchemaLocation, keyword: str = "$ref"
    ) -> Subschema | None:
        """The target of a reference and its location; ``None`` if it is not in the document (Core 8.2.3).

        Args:
            node: the schema with the reference.
            location: of that schema.
            keyword: ``$ref`` or ``$dynamicRef``.
        """
        try:
            found = location.resolver.lookup(node[keyword])
        except (Unresolvable, ValueError, AttributeError, TypeError):
            return None
        return found.contents, replace(location.in_place("$ref"), resolver=found.resolver)


def is_local(reference: Any) -> bool:
    """Whether a reference is a fragment only, so that its target is in the same document."""
    return isinstance(reference, str) and reference.startswith("#")


def types_of(node: dict[str, Any]) -> tuple[str, ...]:
    """The types of the ``type`` keyword; all types if there is none (Validation 6.1.1)."""
    named = node.get("type", list(TYPES))
    return tuple(named) if isinstance(named, list) else (named,)


def array_or_empty(node: dict[str, Any], keyword: str) -> list[Any]:
    """The value of a keyword if it is an array; otherwise an empty array."""
    value = node.get(keyword)
    return value if isinstance(value, list) else []


def object_or_empty(node: dict[str, Any], keyword: str) -> dict[str, Any]:
    """The value of a keyword if it is an object; otherwise an empty object."""
    value = node.get(keyword)
    return value if isinstance(value, dict) else {}
