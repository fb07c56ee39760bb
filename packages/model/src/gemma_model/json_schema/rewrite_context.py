"""The context that the rewriting of all keywords shares, and access to the values of keywords."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from gemma_model.json_schema.document import Document, Schema, SchemaLocation
from gemma_model.json_schema.errors import SchemaError
from gemma_model.json_schema.unenforced_keywords import UnenforcedKeywords

MAX_CASES = 32
"""Maximum number of subschemas into which one keyword is rewritten."""


class Rewrite(Protocol):
    """Rewrites a subschema."""

    def __call__(self, node: Any, location: SchemaLocation) -> Schema:
        """See ``rewrite``."""


@dataclass(frozen=True)
class RewriteContext:
    """The context of the rewriting of one document.

    Args:
        doc: the complete schema.
        unenforced: collects the keywords that are not enforced.
        rewrite: rewrites a subschema.
        grammar_error: returns the error of llguidance for a schema; empty if there is none.
        structure_only: only types, properties, items and constants are kept.
    """

    doc: Document
    unenforced: UnenforcedKeywords
    rewrite: Rewrite
    grammar_error: Callable[[Schema], str]
    structure_only: bool = False

    def skips(self, keyword: str, location: SchemaLocation) -> bool:
        """Whether a keyword is not enforced because only the structure is kept; notes the keyword."""
        if self.structure_only:
            self.unenforced.leave_out(keyword, location.path)
        return self.structure_only


def conjunction(subschemas: Iterable[Schema]) -> Schema:
    """A schema that allows the instances that are valid for all of the schemas."""
    constraints: list[dict[str, Any]] = []
    for subschema in subschemas:
        if subschema is False:
            return False
        if isinstance(subschema, dict) and subschema:
            constraints.append(subschema)
    if not constraints:
        return True
    first, *rest = constraints
    if not rest:
        return first
    return {**first, "allOf": [*first.get("allOf", ()), *rest]}


def get_count(node: dict[str, Any], keyword: str, location: SchemaLocation) -> int | None:
    """The value of a keyword if it is a non-negative integer; ``None`` if the keyword is absent.

    Raises:
        SchemaError: the value is not a non-negative integer.
    """
    value = node.get(keyword)
    if value is None and keyword not in node:
        return None
    valid = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value) >= 0
    if not valid:
        raise SchemaError(keyword, location.path, "is not a non-negative integer")
    return int(value)  # type: ignore[arg-type]


def get_object(node: dict[str, Any], keyword: str, location: SchemaLocation) -> dict[str, Any]:
    """The value of a keyword if it is an object; an empty object if the keyword is absent.

    Raises:
        SchemaError: the value is not an object.
    """
    value = node.get(keyword, {})
    if not isinstance(value, dict):
        raise SchemaError(keyword, location.path, "is not an object")
    return value


def get_array(node: dict[str, Any], keyword: str, location: SchemaLocation) -> list[Any]:
    """The value of a keyword if it is an array; an empty array if the keyword is absent.

    Raises:
        SchemaError: the value is not an array.
    """
    value = node.get(keyword, [])
    if not isinstance(value, list):
        raise SchemaError(keyword, location.path, "is not an array")
    return value
