"""Collects the keywords of a schema that are not enforced; the errors of a schema that cannot be used."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any] | bool
Path = tuple[str | int, ...]


class SchemaError(Exception):
    """A schema that cannot be used.

    Args:
        keyword: the wrong keyword; empty if it is the schema itself.
        path: of the schema that has it.
        reason: the rest of the error message.
    """

    def __init__(self, keyword: str, path: Path, reason: str) -> None:
        self.keyword, self.path, self.reason = keyword, path, reason
        subject = f"{keyword!r} at {show(path)}" if keyword else f"what is at {show(path)}"
        super().__init__(f"{subject} {reason}")


class NotEnforceable(SchemaError):
    """A keyword that a grammar cannot enforce, in a schema that is strict."""


def show(path: Path) -> str:
    """``("properties", "a", "items", 0)`` → ``$.properties.a.items[0]``."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


@dataclass
class UnenforcedKeywords:
    """The keywords that are not enforced, with the path of the first of each.

    Args:
        strict: raise an error instead.
    """

    strict: bool
    keywords: dict[str, Path] = field(default_factory=dict)

    def leave_out(self, keyword: str, path: Path, reason: str = "cannot be enforced") -> None:
        """Note that a keyword is not enforced.

        Raises:
            NotEnforceable: the schema is strict.
        """
        if self.strict:
            raise NotEnforceable(keyword, path, reason)
        self.keywords.setdefault(keyword, path)

    def note(self, keyword: str, path: Path) -> None:
        """Note a keyword that is an annotation by default, and is not checked."""
        self.keywords.setdefault(keyword, path)

    @contextmanager
    def lenient(self) -> Iterator[None]:
        """Within this context, nothing is noted or raised: for the analysis of a schema."""
        strict, keywords = self.strict, dict(self.keywords)
        self.strict = False
        try:
            yield
        finally:
            self.strict, self.keywords = strict, keywords
