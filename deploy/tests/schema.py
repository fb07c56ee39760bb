"""check-jsonschema with the schemas that it brings, in this process: importing it takes seconds."""

from pathlib import Path

import check_jsonschema  # type: ignore[import-untyped]
from click.testing import CliRunner


def complaints(name: str, *files: Path) -> str:
    """What it says about the files; empty when they fit its schema of this name."""
    words = ["--builtin-schema", name, *map(str, files)]
    result = CliRunner().invoke(check_jsonschema.main, words)
    return "" if result.exit_code == 0 else result.output or repr(result.exception)
