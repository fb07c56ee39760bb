"""How answers are shown: as they come, or as Markdown in a terminal."""

import sys
import unicodedata
from collections.abc import Iterable
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown

REFRESHES_PER_S = 8


class View(Protocol):
    """Where answers go."""

    def show(self, pieces: Iterable[str]) -> None:
        """Shows an answer piece by piece, and ends its line."""

    def note(self, text: str) -> None:
        """Something that is not the model's."""


class PlainView:
    """Text as it comes, on standard output; notes on standard error."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def show(self, pieces: Iterable[str]) -> None:
        """See ``View.show``."""
        try:
            for piece in pieces:
                self._out.write(printable(piece))
                self._out.flush()
        finally:
            self._out.write("\n")
            self._out.flush()

    def note(self, text: str) -> None:
        """See ``View.note``."""
        print(text, file=sys.stderr, flush=True)


class MarkdownView:
    """Markdown in a terminal: what is complete is printed for good, the block that grows is drawn again."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, pieces: Iterable[str]) -> None:
        """See ``View.show``."""
        rest = ""
        with Live(console=self._console, refresh_per_second=REFRESHES_PER_S, transient=True) as live:
            try:
                for piece in pieces:
                    finished, rest = split_finished(rest + printable(piece))
                    if finished:
                        self._console.print(Markdown(finished))
                    live.update(Markdown(rest))
            finally:
                live.update("")
                self._console.print(Markdown(rest))

    def note(self, text: str) -> None:
        """See ``View.note``."""
        self._console.print(text, style="dim", markup=False, highlight=False)


def split_finished(text: str) -> tuple[str, str]:
    """Markdown up to the last blank line outside a fenced block, and what may still grow."""
    fenced, end, at = "", 0, 0
    for line in text.splitlines(keepends=True):
        at += len(line)
        mark = line.strip()[:3]
        if mark in ("```", "~~~") and fenced in ("", mark):
            fenced = "" if fenced else mark
        if not line.strip() and line.endswith("\n") and not fenced:
            end = at
    return text[:end], text[end:]


def printable(text: str) -> str:
    """Without control characters: no model shall move the cursor or rename the window."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
