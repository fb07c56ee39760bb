"""A schema as a document: its dialect and its references, which are never fetched."""

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
_ALONE = (DRAFT4, DRAFT6, DRAFT7)
"""Dialects in which keywords next to ``$ref`` have no meaning."""

Resolver = Any


@dataclass(frozen=True)
class SchemaLocation:
    """The location of a (nested) schema.

    Args:
        path: from the root, as the client wrote it.
        resolver: knows what references mean there.
        merged: it is met together with others about the same value, so it must not be closed on its own.
        within: what references to the same value stand for, by ``id``; one of them again would have no end.
    """

    path: Path
    resolver: Resolver
    merged: bool = False
    within: frozenset[int] = frozenset()

    def down(self, *steps: str | int) -> "SchemaLocation":
        """The location of a schema for a part of the value."""
        return SchemaLocation((*self.path, *steps), self.resolver)

    def beside(self, *steps: str | int) -> "SchemaLocation":
        """The location of another schema for the same value."""
        return replace(self, path=(*self.path, *steps))


class Document:
    """The complete schema.

    Args:
        root: a schema.
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
    def ref_stands_alone(self) -> bool:
        """Whether keywords next to ``$ref`` have no meaning."""
        return self._specification in _ALONE

    def enter(self, node: dict[str, Any], at: SchemaLocation) -> SchemaLocation:
        """The place of a schema that may have an address of its own."""
        if not isinstance(node.get("$id", node.get("id")), str):
            return at
        subresource = self._specification.create_resource(node)
        return replace(at, resolver=at.resolver.in_subresource(subresource))

    def follow(
        self, node: dict[str, Any], at: SchemaLocation, word: str = "$ref"
    ) -> tuple[Any, SchemaLocation] | None:
        """The target of a schema's reference; ``None`` if it is not part of the document."""
        try:
            found = at.resolver.lookup(node[word])
        except (Unresolvable, ValueError, AttributeError, TypeError):
            return None
        return found.contents, replace(at.beside("$ref"), resolver=found.resolver)


def is_local(reference: Any) -> bool:
    """Whether a reference can only mean a part of the same schema."""
    return isinstance(reference, str) and reference.startswith("#")


def types_of(node: dict[str, Any]) -> tuple[str, ...]:
    """The types that a schema names; all without."""
    named = node.get("type", list(TYPES))
    return tuple(named) if isinstance(named, list) else (named,)


def list_of(node: dict[str, Any], word: str) -> list[Any]:
    """The value of a keyword if it is an array; otherwise an empty one."""
    value = node.get(word)
    return value if isinstance(value, list) else []


def map_of(node: dict[str, Any], word: str) -> dict[str, Any]:
    """The value of a keyword if it is an object; otherwise an empty one."""
    value = node.get(word)
    return value if isinstance(value, dict) else {}
