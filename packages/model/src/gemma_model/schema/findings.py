"""What was found out about a schema: which keywords are not enforced, and what is wrong with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any] | bool
Path = tuple[str | int, ...]


class SchemaError(Exception):
    """A schema that cannot be used.

    Args:
        keyword: the culprit; empty when it is the schema itself.
        path: where it stands.
        reason: a clause for people.
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
class Findings:
    """Collects the keywords that are left out.

    Args:
        strict: raise instead of leaving out.
    """

    strict: bool
    left_out: dict[str, Path] = field(default_factory=dict)

    def leave_out(self, keyword: str, path: Path, reason: str = "cannot be enforced") -> None:
        """Note that a keyword is not enforced.

        Raises:
            NotEnforceable: when the schema is strict.
        """
        if self.strict:
            raise NotEnforceable(keyword, path, reason)
        self.left_out.setdefault(keyword, path)

    def note(self, keyword: str, path: Path) -> None:
        """A keyword that is an annotation by default, and that nobody checks here."""
        self.left_out.setdefault(keyword, path)

    @contextmanager
    def lenient(self) -> Iterator[None]:
        """Within, nothing is noted and nothing is raised: for proofs about a schema."""
        strict, left_out = self.strict, dict(self.left_out)
        self.strict = False
        try:
            yield
        finally:
            self.strict, self.left_out = strict, left_out
