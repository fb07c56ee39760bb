"""The launcher's output: one line per message, prefixed with its source."""

import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

LogLevel = Literal["info", "warning", "error"]

SOURCE_WIDTH = len("playground")
MAX_QUEUED_LINES = 10_000

_COLOURS = {"launcher": "35", "triton": "36", "gateway": "32", "playground": "34"}
_LEVEL_COLOURS: dict[LogLevel, str] = {"info": "", "warning": "33", "error": "31"}


class LogLine(NamedTuple):
    """One line of a log; ``time`` is ``HH:MM:SS`` or empty."""

    text: str
    level: LogLevel = "info"
    time: str = ""


class Console:
    """Writes lines from a thread of its own.

    A blocked terminal (Ctrl-S) or an unread pipe blocks that thread only, not the supervision. When the queue
    is full, lines are dropped and the number of dropped lines is reported.

    Args:
        descriptor: the file descriptor to write to.
        colour: whether to use ANSI colours.
    """

    def __init__(self, descriptor: int = 1, colour: bool = False) -> None:
        self._descriptor = descriptor
        self._colour = colour
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # may be used in signal handlers
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="console", daemon=True)
        self._thread.start()

    def log(self, text: str, level: LogLevel = "info") -> None:
        """Writes a message of the launcher."""
        self.write_line("launcher", LogLine(text, level, time.strftime("%H:%M:%S")))

    def write_line(self, source: str, line: LogLine) -> None:
        """Writes a line of ``source``."""
        self.write_block(render(source, line, self._colour))

    def write_block(self, text: str) -> None:
        """Writes some lines without a prefix."""
        if self._lines.qsize() >= MAX_QUEUED_LINES:
            self._dropped += 1
        else:
            self._lines.put(text + "\n")

    def close(self, timeout_s: float = 1.0) -> None:
        """Writes the queued lines, unless that takes longer than ``timeout_s``."""
        self._lines.put(None)
        self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether queued lines may still be written."""
        return self._thread.is_alive()

    def _write(self) -> None:
        while (text := self._lines.get()) is not None:
            if self._dropped:
                text, self._dropped = f"({self._dropped} lines dropped)\n{text}", 0
            data = text.encode(errors="replace")
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:  # the reader is gone, or the disk is full; serving continues
                continue


def render(source: str, line: LogLine, colour: bool) -> str:
    """``triton     | 12:00:01 warning: text``."""
    level = "" if line.level == "info" else f"{line.level}: "
    timestamp = f"{line.time} " if line.time else ""
    if not colour:
        return f"{source:<{SOURCE_WIDTH}} | {timestamp}{level}{line.text}"
    prefix = paint(f"{source:<{SOURCE_WIDTH}} |", _COLOURS.get(source, ""))
    return f"{prefix} {paint(timestamp, '2')}{paint(level + line.text, _LEVEL_COLOURS[line.level])}"


def wants_colour(descriptor: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to use colours: on a terminal without ``NO_COLOR`` (https://no-color.org)."""
    return os.isatty(descriptor) and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def print_error(sentence: str) -> None:
    """Prints one sentence to standard error."""
    _print_labelled("error", sentence)


def print_warning(sentence: str) -> None:
    """Prints one sentence to standard error."""
    _print_labelled("warning", sentence)


def _print_labelled(level: LogLevel, sentence: str) -> None:
    label = paint(f"{level}:", _LEVEL_COLOURS[level]) if wants_colour(2) else f"{level}:"
    print(f"{label} {sentence}", file=sys.stderr, flush=True)


def paint(text: str, code: str) -> str:
    """The text with the ANSI colour ``code``; unchanged if the code or the text is empty."""
    return f"\x1b[{code}m{text}\x1b[0m" if code and text else text
