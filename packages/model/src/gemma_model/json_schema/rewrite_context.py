"""The context of a rewriting, and helpers for keywords."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from gemma_model.json_schema.document import Document, Schema, SchemaLocation
from gemma_model.json_schema.errors import SchemaError
from gemma_model.json_schema.unenforced_keywords import UnenforcedKeywords

MOST_CASES = 32
"""Maximum number of alternatives that express one keyword."""


class Rewrite(Protocol):
    """Rewrites a nested schema."""

    def __call__(self, node: Any, at: SchemaLocation) -> Schema:
        """See ``rewrite``."""


@dataclass(frozen=True)
class RewriteContext:
    """What the rewriting of a keyword needs.

    Args:
        doc: the complete schema.
        unenforced: is told what is left out.
        rewrite: for nested schemas.
        grammar_error: the error of llguidance for a schema; empty if there is none.
        structure_only: only types, properties, items and constants are kept.
    """

    doc: Document
    unenforced: UnenforcedKeywords
    rewrite: Rewrite
    grammar_error: Callable[[Schema], str]
    structure_only: bool = False

    def skips(self, word: str, at: SchemaLocation) -> bool:
        """Whether a keyword is left out because only the structure is kept."""
        if self.structure_only:
            self.unenforced.leave_out(word, at.path)
        return self.structure_only


def conjunction(parts: Iterable[Schema]) -> Schema:
    """A schema that accepts what all of these accept."""
    kept: list[dict[str, Any]] = []
    for part in parts:
        if part is False:
            return False
        if isinstance(part, dict) and part:
            kept.append(part)
    if not kept:
        return True
    head, *rest = kept
    if not rest:
        return head
    return {**head, "allOf": [*head.get("allOf", ()), *rest]}


def count(node: dict[str, Any], word: str, at: SchemaLocation) -> int | None:
    """A keyword whose value is a natural number.

    Raises:
        SchemaError: when it is not.
    """
    value = node.get(word)
    if value is None and word not in node:
        return None
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value) >= 0
    if not whole:
        raise SchemaError(word, at.path, "is not a natural number")
    return int(value)  # type: ignore[arg-type]


def mapping(node: dict[str, Any], word: str, at: SchemaLocation) -> dict[str, Any]:
    """A keyword whose value is an object; empty without.

    Raises:
        SchemaError: when it is not.
    """
    value = node.get(word, {})
    if not isinstance(value, dict):
        raise SchemaError(word, at.path, "is not an object")
    return value


def listed(node: dict[str, Any], word: str, at: SchemaLocation) -> list[Any]:
    """A keyword whose value is an array; empty without.

    Raises:
        SchemaError: when it is not.
    """
    value = node.get(word, [])
    if not isinstance(value, list):
        raise SchemaError(word, at.path, "is not an array")
    return value
