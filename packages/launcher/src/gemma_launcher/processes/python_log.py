"""Parses the output of the gateway and the playground: log lines, tracebacks and other output."""

import re
from collections.abc import Sequence
from typing import Final

from gemma_launcher.console import LogLevel, LogLine

_LOG_LINE = re.compile(
    r"(?:\d{4}-\d\d-\d\d )?(?:(?P<time>\d\d:\d\d:\d\d)[.,]\d+ )?"
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):? +(?P<text>.*)"
)
SETTING_ERROR: Final = "gemma-gateway: "
"""How the gateway's line about a wrong setting begins."""

_LEVELS: Final[dict[str, LogLevel]] = {"WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}


def parse_line(raw: str) -> list[LogLine]:
    """The line to show for one line of output; none for an empty one."""
    match = _LOG_LINE.fullmatch(raw)
    if match is None:
        return [LogLine(raw.rstrip())] if raw.strip() else []
    return [LogLine(match["text"].rstrip(), _LEVELS.get(match["level"], "info"), match["time"] or "")]


def permanent_error(lines: Sequence[str]) -> str:
    """The sentence about a setting with which the gateway cannot start, if that is why it ended."""
    _, is_setting, message = failure_reason(lines).partition(SETTING_ERROR)
    return f"the gateway cannot start: {message}" if is_setting else ""


def failure_reason(lines: Sequence[str]) -> str:
    """Why a Python program ended: its last line, which in a traceback is the exception."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "there was no output")
