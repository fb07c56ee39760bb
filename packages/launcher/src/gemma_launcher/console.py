"""Everything the launcher prints: one line each, with a prefix that says who speaks."""

import os
import queue
import sys
import threading
import time
from collections.abc import Mapping

from gemma_launcher.glog import Level, Line

WIDTH = len("playground")
MOST_LINES = 10_000
"""So many may wait to be written."""

_COLOURS = {"launcher": "35", "triton": "36", "gateway": "32", "playground": "34"}
_LEVEL_COLOURS: dict[Level, str] = {"info": "", "warning": "33", "error": "31"}


class Console:
    """Writes lines from a thread of its own.

    A terminal that is held (Ctrl-S) or a pipe that nobody reads blocks that thread alone, never the
    supervision. When too much waits, lines are dropped, and their number is said.

    Args:
        descriptor: the open file to write to.
        colour: with ANSI colours.
    """

    def __init__(self, descriptor: int = 1, colour: bool = False) -> None:
        self._descriptor = descriptor
        self._colour = colour
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # safe in a signal handler
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="console", daemon=True)
        self._thread.start()

    def say(self, text: str, level: Level = "info") -> None:
        """A line of the launcher's own."""
        self.show("launcher", Line(text, level, time.strftime("%H:%M:%S")))

    def show(self, source: str, line: Line) -> None:
        """A line of ``source``."""
        self._put(render(source, line, self._colour))

    def block(self, text: str) -> None:
        """Some lines without a prefix."""
        self._put(text)

    def close(self, patience_s: float = 1.0) -> None:
        """Writes what waits, if that is possible at once."""
        self._lines.put(None)
        self._thread.join(patience_s)

    @property
    def is_alive(self) -> bool:
        """Whether something may still be written."""
        return self._thread.is_alive()

    def _put(self, text: str) -> None:
        if self._lines.qsize() >= MOST_LINES:
            self._dropped += 1
        else:
            self._lines.put(text + "\n")

    def _write(self) -> None:
        while (text := self._lines.get()) is not None:
            if self._dropped:
                text, self._dropped = f"({self._dropped} lines dropped)\n{text}", 0
            try:
                _write_all(self._descriptor, text.encode(errors="replace"))
            except OSError:  # the reader is gone, or the disk is full: serving goes on
                continue


def render(source: str, line: Line, colour: bool) -> str:
    """``triton     | 12:00:01 warning: text``."""
    word = "" if line.level == "info" else f"{line.level}: "
    stamp = f"{line.time} " if line.time else ""
    if not colour:
        return f"{source:<{WIDTH}} | {stamp}{word}{line.text}"
    prefix = paint(f"{source:<{WIDTH}} |", _COLOURS.get(source, ""))
    return f"{prefix} {paint(stamp, '2')}{paint(word + line.text, _LEVEL_COLOURS[line.level])}"


def wants_colour(descriptor: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour: a terminal, and no ``NO_COLOR`` (https://no-color.org)."""
    return os.isatty(descriptor) and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def fail(sentence: str) -> None:
    """One sentence on standard error."""
    red = wants_colour(2)
    print(f"{paint('error:', '31') if red else 'error:'} {sentence}", file=sys.stderr, flush=True)


def paint(text: str, code: str) -> str:
    """The text in a colour, given as the code of an ANSI escape; as it is without one."""
    return f"\x1b[{code}m{text}\x1b[0m" if code and text else text


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
