"""Shows responses while they are streamed, as plain text or as Markdown in a terminal."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown

REFRESHES_PER_S = 8


class View(Protocol):
    """Shows responses and notes."""

    def show(self, deltas: Iterable[str]) -> None:
        """Shows a response as it is streamed, and ends its line."""

    def finish(self, response: Mapping[str, Any]) -> None:
        """Called with the complete response after ``show``."""

    def note(self, text: str) -> None:
        """Shows a message of the program."""


class PlainView:
    """Responses on standard output, notes on standard error."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def show(self, deltas: Iterable[str]) -> None:
        """See ``View.show``."""
        try:
            for delta in deltas:
                self._out.write(printable(delta))
                self._out.flush()
        finally:
            self._out.write("\n")
            self._out.flush()

    def finish(self, response: Mapping[str, Any]) -> None:
        """See ``View.finish``."""

    def note(self, text: str) -> None:
        """See ``View.note``."""
        print(text, file=sys.stderr, flush=True)


class JsonView(PlainView):
    """Each response as one line of JSON on standard output, notes on standard error."""

    def show(self, deltas: Iterable[str]) -> None:
        """See ``View.show``."""
        for _ in deltas:
            pass

    def finish(self, response: Mapping[str, Any]) -> None:
        """See ``View.finish``."""
        self._out.write(json.dumps(response, ensure_ascii=False) + "\n")
        self._out.flush()


class MarkdownView:
    """Markdown in a terminal: completed blocks are printed, the last block is redrawn as it grows."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, deltas: Iterable[str]) -> None:
        """See ``View.show``."""
        rest = ""
        with Live(console=self._console, refresh_per_second=REFRESHES_PER_S, transient=True) as live:
            try:
                for delta in deltas:
                    completed, rest = split_completed(rest + printable(delta))
                    if completed:
                        self._console.print(Markdown(completed))
                    live.update(Markdown(rest))
            finally:
                live.update("")
                self._console.print(Markdown(rest))

    def finish(self, response: Mapping[str, Any]) -> None:
        """See ``View.finish``."""

    def note(self, text: str) -> None:
        """See ``View.note``."""
        self._console.print(text, style="dim", markup=False, highlight=False)


def split_completed(text: str) -> tuple[str, str]:
    """Markdown up to the last blank line outside a fenced block, and the rest, which may still grow."""
    fence, end, position = "", 0, 0
    for line in text.splitlines(keepends=True):
        position += len(line)
        mark = line.strip()[:3]
        if mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
        if not line.strip() and line.endswith("\n") and not fence:
            end = position
    return text[:end], text[end:]


def printable(text: str) -> str:
    """The text without control characters, with which a model could change the terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
