"""The progress of a command, on standard error."""

import sys


class ProgressBar:
    """A line on standard error; on a terminal it is updated, elsewhere there is one line per tenth.

    Args:
        total: bytes to read.
    """

    def __init__(self, total: int = 0) -> None:
        self.total, self._done, self._shown = total, 0, -1
        self._terminal = sys.stderr.isatty()

    def advance(self, count: int) -> None:
        """Say that so many more bytes were read."""
        self._done += count
        percent = 100 * self._done // max(1, self.total)
        if percent // (1 if self._terminal else 10) == self._shown:
            return
        self._shown = percent // (1 if self._terminal else 10)
        bar = "#" * (percent * 30 // 100)
        start, end = ("\r", "" if percent < 100 else "\n") if self._terminal else ("", "\n")
        text = f"{start}[{bar:<30}] {percent:3} % of {self.total / 1e9:.2f} GB{end}"
        sys.stderr.write(text)
        sys.stderr.flush()
