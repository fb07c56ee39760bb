"""What every rewriting of a schema's keywords needs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from gemma_model.schema.document import At, Document
from gemma_model.schema.findings import Findings, Schema, SchemaError

MOST_CASES = 32
"""Alternatives by which one keyword is expressed."""


class Rewrite(Protocol):
    """Rewrites a schema within."""

    def __call__(self, node: Any, at: At) -> Schema:
        """See ``rewrite``."""


@dataclass(frozen=True)
class Walk:
    """What is known on the way through a schema.

    Args:
        doc: the whole.
        findings: is told what is left out.
        rewrite: for schemas within.
        complaint: of the grammar library about a schema of its own; empty when there is none.
        structure_only: only types, properties, items and constants are kept.
    """

    doc: Document
    findings: Findings
    rewrite: Rewrite
    complaint: Callable[[Schema], str]
    structure_only: bool = False

    def skips(self, word: str, at: At) -> bool:
        """Whether a keyword is left out because only the structure is kept."""
        if self.structure_only:
            self.findings.leave_out(word, at.path)
        return self.structure_only


def conjunction(parts: Iterable[Schema]) -> Schema:
    """A schema that takes what all of these take."""
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


def count(node: dict[str, Any], word: str, at: At) -> int | None:
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


def mapping(node: dict[str, Any], word: str, at: At) -> dict[str, Any]:
    """A keyword whose value is an object; empty without.

    Raises:
        SchemaError: when it is not.
    """
    value = node.get(word, {})
    if not isinstance(value, dict):
        raise SchemaError(word, at.path, "is not an object")
    return value


def listed(node: dict[str, Any], word: str, at: At) -> list[Any]:
    """A keyword whose value is an array; empty without.

    Raises:
        SchemaError: when it is not.
    """
    value = node.get(word, [])
    if not isinstance(value, list):
        raise SchemaError(word, at.path, "is not an array")
    return value
