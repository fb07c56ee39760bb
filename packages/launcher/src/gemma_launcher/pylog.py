"""The gateway's log: lines of Python's logging, tracebacks, and whatever else is printed."""

import re
from collections.abc import Sequence
from typing import Final

from gemma_launcher.glog import Level, Line

_HEAD = re.compile(
    r"(?:\d{4}-\d\d-\d\d )?(?:(?P<time>\d\d:\d\d:\d\d)[.,]\d+ )?"
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):? +(?P<text>.*)"
)
_LEVELS: Final[dict[str, Level]] = {"WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}


def read(raw: str) -> list[Line]:
    """The line to show for one line of output, if any."""
    match = _HEAD.fullmatch(raw)
    if match is None:
        return [Line(raw.rstrip())] if raw.strip() else []
    return [Line(match["text"].rstrip(), _LEVELS.get(match["level"], "info"), match["time"] or "")]


def why(lines: Sequence[str]) -> str:
    """Why a Python program ended: the last line, which in a traceback is the exception."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
