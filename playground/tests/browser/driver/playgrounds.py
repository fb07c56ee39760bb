"""The playground as a process, started as users start it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from stack import eventually, free_ports

START_SECONDS = 240  # it takes a few seconds, on a busy machine many more
STOP_SECONDS = 60  # it takes one second
SETTINGS = {"OPENAI_API_KEY", "OPENAI_BASE_URL", "PLAYGROUND_HOST", "PLAYGROUND_PORT"}


@dataclass(frozen=True)
class Playground:
    """Its address, and the file with its output."""

    url: str
    log: Path

    def wait_ready(self, ended: Callable[[], bool] = lambda: False) -> None:
        """Wait until the page is served; fail as soon as ``ended`` is true."""
        assert eventually(lambda: ended() or self._is_ready(), START_SECONDS), self.tail()
        assert not ended(), self.tail()

    def tail(self) -> str:
        """The end of its output."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def _is_ready(self) -> bool:
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        return False


@contextlib.contextmanager
def playing(folder: Path, base_url: str, **environment: str) -> Iterator[Playground]:
    """``python -m gemma_playground`` on a free port; it must end with exit code 0.

    Args:
        folder: for its log.
        base_url: of the server that it uses.
        environment: added to that of this process, without the playground's settings.
    """
    (port,) = free_ports(1)
    own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gemma_playground", f"--port={port}", f"--base-url={base_url}"],
            env={**own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        playground = Playground(f"http://127.0.0.1:{port}", log)
        playground.wait_ready(lambda: process.poll() is not None)
        yield playground
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0, playground.tail()
    finally:
        process.kill()
        process.wait()
