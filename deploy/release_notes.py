"""Prints the section of a version in ``CHANGELOG.md``, for the notes of its release.

Usage: ``python3 deploy/release_notes.py v0.2.0``. Only the standard library is used.
"""

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"


def notes(changelog: str, version: str) -> str:
    """The section ``## [version]``, without its heading.

    Args:
        changelog: in the format of Keep a Changelog.
        version: with or without a leading ``v``.

    Raises:
        LookupError: there is no such section, or it is empty.
    """
    wanted = version.removeprefix("v")
    sections = re.split(r"^## \[([^\]]+)\].*\n", changelog, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True)).get(wanted)
    if found is None:
        raise LookupError(f"CHANGELOG.md has no section [{wanted}]: add it before the tag")
    text = re.sub(r"^\[[^\]]+\]: \S+\n?", "", found, flags=re.MULTILINE).strip()
    if not text:
        raise LookupError(f"the section [{wanted}] of CHANGELOG.md is empty")
    return text


def main() -> None:
    """Command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: release_notes.py VERSION")
    try:
        print(notes(CHANGELOG.read_text(encoding="utf-8"), sys.argv[1]))
    except LookupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
