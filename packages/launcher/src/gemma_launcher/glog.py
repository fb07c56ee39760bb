"""Triton's log, made readable: pure, one line in, no line or some lines out."""

import json
import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

Level = Literal["info", "warning", "error"]

_HEAD = re.compile(r"(?P<level>[IWEF])\d{4} (?P<time>\d\d:\d\d:\d\d)\.\d+ \d+ [\w./-]+:\d+\] ?(?P<text>.*)")
_LEVELS: dict[str, Level] = {"I": "info", "W": "warning", "E": "error", "F": "error"}
_RULE = re.compile(r"\+(?:-+\+)+")
_LOAD_FAILURE = re.compile(r"failed to load '[^']*' version \d+: (?P<reason>.+)", re.DOTALL)

# Said at every start or stop, and of use to nobody who runs one model. With TRITON_LOG_LEVEL they stay.
_NOISE: Final = (
    "Pinned memory pool disabled",
    "CUDA memory pool disabled",
    "CudaDriverHelper has not been initialized",
    "TRITONBACKEND_ModelInstanceInitialize",
    "Collecting CPU metrics",
    "Waiting for in-flight requests",
    "All models are stopped",
    "Timeout ",
    "Failed to initialize Python stub",  # these two are said again as "failed to load"
    "ERROR: Failed to create instance",
)


class Line(NamedTuple):
    """One line for people; ``time`` is ``HH:MM:SS`` or empty."""

    text: str
    level: Level = "info"
    time: str = ""


class Reader:
    """Reads the output of one tritonserver, in order.

    Args:
        verbose: keep what is noise otherwise.
    """

    def __init__(self, verbose: bool = False) -> None:
        self._verbose = verbose
        self._in_table = False

    def __call__(self, raw: str) -> list[Line]:
        """The lines to show for one line of output, without its newline."""
        raw = raw.rstrip("\r").rsplit("\r")[-1]  # of a progress bar, its last state
        if self._verbose:
            return [Line(raw)]
        match = _HEAD.fullmatch(raw)
        if match is None:
            return self._plain(raw)
        self._in_table = False
        text = _unquote(match["text"])
        if not text.strip() or text.lstrip().startswith(_NOISE):
            return []
        parts = [part for part in text.splitlines() if part.strip()]
        return [Line(part.rstrip(), _LEVELS[match["level"]], match["time"]) for part in parts]

    def _plain(self, raw: str) -> list[Line]:
        """What is no log line: the tables, and whatever the model prints."""
        self._in_table = bool(_RULE.fullmatch(raw)) or (self._in_table and raw.startswith("|"))
        if self._in_table or not raw.strip():
            return []
        return [Line(raw.rstrip(), "error" if raw.startswith("error:") else "info")]


def why(lines: Sequence[str]) -> str:
    """Why tritonserver ended, from the last lines of its output: the model's exception, or its last error."""
    for line in lines:
        match = _HEAD.fullmatch(line)
        if failure := _LOAD_FAILURE.match(_unquote(match["text"])) if match else None:
            return failure["reason"].splitlines()[0]
    reader = Reader()
    said = [shown for line in lines for shown in reader(line)]
    errors = [line.text for line in said if line.level == "error"] or [line.text for line in said]
    return errors[-1] if errors else "it said nothing"


def _unquote(text: str) -> str:
    """Triton writes its messages as JSON strings, mostly."""
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text
