"""The whole stack on free ports, for tests.

with stack.running(tmp_path, "--model", folder) as served:
httpx.get(f"{served.api}/v1/models")
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from gemma_launcher.addresses import LOOPBACK
from gemma_launcher.processes.ports import find_free_port

Leftovers = Callable[[int], list[object]]
"""What the fixture ``leftovers`` gives."""


@dataclass(frozen=True)
class RunningLauncher:
    """A launcher that was started as a process of its own.

    Args:
        process: the launcher.
        log: the file with its output.
        api: ``http://HOST:PORT`` of the gateway; so are ``triton_http`` and ``metrics`` of Triton.
        triton_grpc: ``HOST:PORT``.
        playground: as ``api``; empty without one.
    """

    process: subprocess.Popen[bytes]
    log: Path
    api: str
    triton_http: str
    triton_grpc: str
    metrics: str
    playground: str = ""

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        return self.log.read_text(errors="replace")

    def is_ready(self) -> bool:
        """Whether the API would answer now."""
        try:
            return httpx.get(f"{self.api}/health/ready", trust_env=False, timeout=5).is_success
        except httpx.HTTPError:
            return False

    def wait(self, condition: Callable[[], bool], limit_s: float) -> None:
        """Waits until ``condition`` holds.

        Raises:
            TimeoutError: it does not, or the launcher has ended; with all of its output.
        """
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise TimeoutError(f"exit code {self.process.poll()}, and it said:\n{self.output}")
            time.sleep(0.25)

    def stop(self, limit_s: float = 10.0) -> int:
        """SIGTERM; the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        self.process.terminate()
        return self.process.wait(limit_s)


@contextmanager
def started(
    folder: Path,
    *flags: str,
    environment: Mapping[str, str] | None = None,
    playground: Path | None = None,
) -> Iterator[RunningLauncher]:
    """The stack, just started; whatever still runs at the end is stopped.

    Args:
        folder: where the log goes.
        *flags: more flags of ``serve``.
        environment: more variables.
        playground: the folder of a package that is taken for the playground; none: without one.
    """
    stack = _start(folder, flags, environment or {}, playground)
    try:
        yield stack
    finally:
        if stack.process.poll() is None:
            stack.stop()


@contextmanager
def running(
    folder: Path,
    *flags: str,
    environment: Mapping[str, str] | None = None,
    playground: Path | None = None,
    limit_s: float = 100.0,
) -> Iterator[RunningLauncher]:
    """The stack, ready to answer; it is stopped at the end.

    Args:
        folder: where the log goes.
        *flags: more flags of ``serve``.
        environment: more variables.
        playground: as in ``started``; it may come up later.
        limit_s: seconds it may take to be ready.

    Raises:
        TimeoutError: it did not become ready; with all of its output.
    """
    with started(folder, *flags, environment=environment, playground=playground) as stack:
        stack.wait(stack.is_ready, limit_s)
        yield stack


def until(stack: RunningLauncher, words: str, limit_s: float, times: int = 1) -> None:
    """Waits until the launcher has said so, so many times."""
    stack.wait(lambda: stack.output.count(words) >= times, limit_s)


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    """What is done inside must take less."""
    began = time.monotonic()
    yield
    took_s = time.monotonic() - began
    assert took_s < limit_s, f"it took {took_s:.1f} s"


def _start(
    folder: Path, flags: tuple[str, ...], environment: Mapping[str, str], playground: Path | None
) -> RunningLauncher:
    names = ("--port", "--triton-http-port", "--triton-grpc-port", "--triton-metrics-port")
    numbers: list[int] = []
    for _ in (*names, "--playground-port"):
        numbers.append(find_free_port(LOOPBACK, exclude=numbers))
    *ports, page = map(str, numbers)
    chosen = [part for pair in zip(names, ports, strict=True) for part in pair]
    chosen += ["--playground-port", page] if playground else ["--no-playground"]
    package = {"PYTHONPATH": str(playground)} if playground else {}
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gemma_launcher", "serve", *chosen, *flags],
            env={**os.environ, **package, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    api, http, grpc, metrics = (f"{LOOPBACK}:{port}" for port in ports)
    urls = f"http://{api}", f"http://{http}", grpc, f"http://{metrics}"
    return RunningLauncher(process, log, *urls, playground=f"http://{LOOPBACK}:{page}" if playground else "")


def tritonserver(served: RunningLauncher) -> psutil.Process:
    children = psutil.Process(served.process.pid).children()
    return next(child for child in children if child.name() == "tritonserver")


def gateway(served: RunningLauncher) -> psutil.Process:
    children = psutil.Process(served.process.pid).children()
    return next(child for child in children if "gemma_gateway" in child.cmdline())


def playground(served: RunningLauncher) -> psutil.Process:
    children = psutil.Process(served.process.pid).children()
    return next(child for child in children if "gemma_playground" in child.cmdline())
