"""Collects the keywords of a schema that are not enforced."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gemma_model.json_schema.errors import NotEnforceable, Path


@dataclass
class UnenforcedKeywords:
    """The keywords that are not enforced, with the path of the first occurrence of each.

    Args:
        strict: raise an error instead of noting a keyword.
        keywords: the noted keywords.
    """

    strict: bool
    keywords: dict[str, Path] = field(default_factory=dict)

    def leave_out(self, keyword: str, path: Path, reason: str = "cannot be enforced") -> None:
        """Note that a keyword is not enforced.

        Args:
            keyword: name of the keyword.
            path: of the schema that has it.
            reason: for the error message.

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
