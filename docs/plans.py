"""Writes what ``gemma-triton plan`` says into ``jetson.md``; ``--check`` fails if it says something else now.

A block that begins with ``$ gemma-triton plan`` holds the command and, below it, what it prints.
"""

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

from gemma_launcher.__main__ import main as gemma_triton

PAGE = Path(__file__).with_name("jetson.md")
_BLOCK = re.compile(r"```text\n\$ gemma-triton (?P<arguments>plan [^\n]*)\n(?P<said>.*?)```", re.DOTALL)


def page(text: str) -> str:
    """The page with every block written anew."""
    return _BLOCK.sub(lambda block: f"```text\n$ gemma-triton {block[1]}\n{_said(block[1])}```", text)


def _said(arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        gemma_triton(shlex.split(arguments))
    return said.getvalue()


def main() -> None:
    """Command line."""
    text = PAGE.read_text(encoding="utf-8")
    if "--check" not in sys.argv:
        PAGE.write_text(page(text), encoding="utf-8")
    elif text != page(text):
        sys.exit("docs/jetson.md is not what the planner says: run python docs/plans.py")


if __name__ == "__main__":
    main()
