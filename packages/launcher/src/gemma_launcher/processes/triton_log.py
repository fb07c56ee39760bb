"""Parses Triton's log into lines for users. Pure functions of the output."""

import json
import re
from collections.abc import Sequence
from typing import Final

from gemma_launcher.console import LogLevel, LogLine
from gemma_wire import InvalidSetting

_GLOG_LINE = re.compile(
    r"(?P<level>[IWEF])\d{4} (?P<time>\d\d:\d\d:\d\d)\.\d+ \d+ [\w./-]+:\d+\] ?(?P<text>.*)"
)
_LEVELS: dict[str, LogLevel] = {"I": "info", "W": "warning", "E": "error", "F": "error"}
_TABLE_RULE = re.compile(r"\+(?:-+\+)+")
_LOAD_FAILURE = re.compile(r"failed to load '[^']*' version \d+: (?P<reason>.+)", re.DOTALL)

# Logged at every start or stop, and not useful with a single model. Shown if TRITON_LOG_LEVEL is above 0.
_IGNORED: Final = (
    "Pinned memory pool disabled",
    "CUDA memory pool disabled",
    "CudaDriverHelper has not been initialized",
    "TRITONBACKEND_ModelInstanceInitialize",
    "Collecting CPU metrics",
    "Waiting for in-flight requests",
    "All models are stopped",
    "Timeout ",
    "Failed to initialize Python stub",  # these two are repeated as "failed to load"
    "ERROR: Failed to create instance",
)


class TritonLogParser:
    """Parses the output of one tritonserver, line by line.

    Args:
        verbose: keep everything as it is.
    """

    def __init__(self, verbose: bool = False) -> None:
        self._verbose = verbose
        self._in_table = False

    def __call__(self, raw: str) -> list[LogLine]:
        """The lines to show for one line of output, which has no newline."""
        raw = raw.rstrip("\r").rsplit("\r")[-1]  # of a progress bar, its last state
        if self._verbose:
            return [LogLine(raw)]
        match = _GLOG_LINE.fullmatch(raw)
        if match is None:
            return self._parse_other(raw)
        self._in_table = False
        text = _unquote(match["text"])
        if text.lstrip().startswith(_IGNORED):
            return []
        lines = filter(str.strip, text.splitlines())
        return [LogLine(line.rstrip(), _LEVELS[match["level"]], match["time"]) for line in lines]

    def _parse_other(self, raw: str) -> list[LogLine]:
        """Triton's tables, which are dropped, and whatever the model prints."""
        self._in_table = bool(_TABLE_RULE.fullmatch(raw)) or (self._in_table and raw.startswith("|"))
        if self._in_table or not raw.strip():
            return []
        return [LogLine(raw.rstrip(), "error" if raw.startswith("error:") else "info")]


def failure_reason(lines: Sequence[str]) -> str:
    """Why tritonserver ended: the model's exception, or the last error among the last lines of its output."""
    for line in lines:
        match = _GLOG_LINE.fullmatch(line)
        if failure := _LOAD_FAILURE.match(_unquote(match["text"])) if match else None:
            return failure["reason"].splitlines()[0]
    parser = TritonLogParser()
    parsed = [shown for line in lines for shown in parser(line)]
    errors = [line.text for line in parsed if line.level == "error"] or [line.text for line in parsed]
    return errors[-1] if errors else "there was no output"


def permanent_error(lines: Sequence[str]) -> str:
    """The sentence about a setting with which the model cannot be loaded, if that ended tritonserver."""
    _, is_setting, message = failure_reason(lines).partition(f"{InvalidSetting.__name__}: ")
    return f"the model cannot be loaded: {message}" if is_setting else ""


def _unquote(text: str) -> str:
    """Triton writes most messages as JSON strings."""
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text
