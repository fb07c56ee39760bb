"""The complete stack, started as users start it: ``gemma-triton serve``."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from gemma_launcher.processes.ports import find_free_port

ROOT = Path(__file__).parent.parent
START_SECONDS = 150
STOP_SECONDS = 10
LONGEST_PAUSE = 0.3  # seconds between two looks
TINY = "gemma3n-tiny"
"""Random weights: small, starts fast, generates arbitrary text."""

SERVE = (sys.executable, "-m", "gemma_launcher", "serve")
MAKE_SERVE = ("make", "--assume-old=.venv/.installed", "serve")
"""As in the README, without installing packages."""


def free_ports(count: int) -> list[int]:
    """Ports that are free at this moment."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(find_free_port("127.0.0.1"))
    return [*ports]


@dataclass
class Stack:
    """A running ``gemma-triton serve``; ``playground_port`` is 0 without a playground."""

    process: "subprocess.Popen[bytes]"
    log: Path
    api_port: int
    triton_http_port: int
    triton_grpc_port: int
    triton_metrics_port: int
    playground_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def triton_url(self) -> str:
        return f"http://127.0.0.1:{self.triton_http_port}"

    @property
    def playground_url(self) -> str:
        return f"http://127.0.0.1:{self.playground_port}"

    @property
    def ports(self) -> set[int]:
        every = {self.api_port, self.triton_http_port, self.triton_grpc_port, self.triton_metrics_port}
        return every | ({self.playground_port} if self.playground_port else set())

    def tree(self) -> list[psutil.Process]:
        """The launcher and everything it started that is still its descendant."""
        launcher = psutil.Process(self.process.pid)
        return [launcher, *launcher.children(recursive=True)]

    def find(self, name: str) -> psutil.Process:
        """The one process whose command line names this program."""
        found = [p for p in self.tree() if _runs(p, name)]
        assert len(found) == 1, f"{len(found)} processes run {name}:\n{self.tail()}"
        return found[0]

    def gauge(self, name: str) -> float:
        """A custom metric of the model, from Triton's metrics port."""
        text = httpx.get(f"http://127.0.0.1:{self.triton_metrics_port}/metrics", timeout=5).text
        return next(
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{")
        )

    def idle(self, seconds: float) -> bool:
        """Whether the model has nothing to do, at the latest after so long."""
        return eventually(lambda: self.gauge("gemma_requests_running") == 0, seconds) and (
            self.gauge("gemma_requests_waiting") == 0
        )

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"the launcher has ended:\n{self.tail()}"
            with contextlib.suppress(httpx.TransportError):
                return client.get(f"{self.url}/health/ready").status_code == 200
            return False

        with httpx.Client(timeout=5) as client:
            assert eventually(ready, seconds), f"not ready after {seconds} s:\n{self.tail()}"

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it as an operator would; the exit code."""
        self.process.send_signal(how)
        return self.process.wait(STOP_SECONDS)

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _runs(process: psutil.Process, name: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE and any(
            name in part for part in process.cmdline()[:1]
        )
    return False


def eventually(test: Any, seconds: float) -> bool:
    """Whether ``test()`` becomes true within ``seconds``; it is called at growing intervals."""
    deadline, pause = time.monotonic() + seconds, 0.02
    while time.monotonic() < deadline:
        if test():
            return True
        time.sleep(pause)
        pause = min(1.3 * pause, LONGEST_PAUSE)
    return bool(test())


@contextlib.contextmanager
def running(
    log: Path,
    *flags: str,
    wait: bool = True,
    playground: bool = False,
    command: tuple[str, ...] = SERVE,
    **environment: str,
) -> Iterator[Stack]:
    """``gemma-triton serve`` on free ports; it is always stopped at the end.

    Args:
        log: file for all that it prints.
        flags: of the command line.
        wait: until it is ready; the playground may come up later.
        playground: with one, which costs seconds of Gradio's start.
        command: how it is started.
        environment: added to this process's own; without ``MODEL_NAME`` the tiny checkpoint is served.
    """
    names = ["API_PORT", *(f"GEMMA_TRITON_{kind}_PORT" for kind in ("HTTP", "GRPC", "METRICS"))]
    names += ["PLAYGROUND_PORT"] if playground else []
    ports = free_ports(len(names))
    here = {name: str(port) for name, port in zip(names, ports, strict=True)}
    clean = {**os.environ, "MODEL_NAME": TINY, "GEMMA_PLAYGROUND": str(playground)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *flags],
            cwd=ROOT,
            env={**clean, **here, **environment},
            process_group=0,  # as a shell with a terminal starts it
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    stack = Stack(process, log, *ports)
    try:
        if wait:
            stack.wait_ready()
        yield stack
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process.poll() is None:
                stack.stop()
        if process.poll() is None:
            process.kill()
            process.wait()
