"""Errors of a schema that cannot be used."""

Path = tuple[str | int, ...]
"""Property names and indices, from the top of the schema."""


class SchemaError(Exception):
    """A schema that cannot be used.

    Args:
        keyword: the wrong keyword; empty if it is the schema itself.
        path: of the schema that has it.
        reason: the rest of the error message.
    """

    def __init__(self, keyword: str, path: Path, reason: str) -> None:
        self.keyword, self.path, self.reason = keyword, path, reason
        subject = f"{keyword!r} at {show(path)}" if keyword else f"the value at {show(path)}"
        super().__init__(f"{subject} {reason}")


class NotEnforceable(SchemaError):
    """A keyword that a grammar cannot enforce, in a schema that is strict."""


def show(path: Path) -> str:
    """``("properties", "a", "items", 0)`` → ``$.properties.a.items[0]``."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
