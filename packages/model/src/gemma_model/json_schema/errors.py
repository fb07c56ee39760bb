"""Errors of a schema that cannot be used."""

Path = tuple[str | int, ...]
"""Keywords, property names and indices, from the root of the schema."""


class SchemaError(Exception):
    """A schema that cannot be used.

    Args:
        keyword: the invalid keyword; empty if the schema itself is invalid.
        path: of the schema that has the keyword.
        reason: the rest of the error message.
    """

    def __init__(self, keyword: str, path: Path, reason: str) -> None:
        self.keyword, self.path, self.reason = keyword, path, reason
        subject = f"{keyword!r} at {json_path(path)}" if keyword else f"the value at {json_path(path)}"
        super().__init__(f"{subject} {reason}")


class NotEnforceable(SchemaError):
    """A strict schema has a keyword that the grammar cannot enforce."""


def json_path(path: Path) -> str:
    """``("properties", "a", "items", 0)`` → ``$.properties.a.items[0]``."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
