"""Our own stack for a benchmark, on free ports, started as a user would."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from gemma_launcher.processes.ports import find_free_port

LOOPBACK = "127.0.0.1"
START_S = 1800.0
PORTS = ("port", "triton-http-port", "triton-grpc-port", "triton-metrics-port")


@dataclass(frozen=True)
class ServingStack:
    """Where it listens, and the launcher's process id."""

    api: str
    triton_grpc: str
    pid: int


@contextmanager
def serving(
    model: str, playground: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[ServingStack]:
    """``gemma-triton serve`` until the end; what it prints goes to standard error.

    Args:
        model: hub id or folder.
        playground: with the playground, on a free port.
        environment: variables to set.

    Raises:
        RuntimeError: it ended, or took longer than ``START_S``.
    """
    ports = {name: find_free_port(LOOPBACK) for name in PORTS}
    flags = [f"--{name}={port}" for name, port in ports.items()]
    flags += ["--playground-port=0"] if playground else ["--no-playground"]
    command = [sys.executable, "-m", "gemma_launcher", "serve", "--model", model, *flags]
    env = {**os.environ, **(environment or {})}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=env)
    api, grpc = f"http://{LOOPBACK}:{ports['port']}/v1", f"{LOOPBACK}:{ports['triton-grpc-port']}"
    stack = ServingStack(api, grpc, process.pid)
    try:
        _wait(process, f"http://{LOOPBACK}:{ports['port']}/health/ready")
        yield stack
    finally:
        process.terminate()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + START_S
    while not _is_ready(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the stack did not become ready; its reason stands above")
        time.sleep(0.5)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10, trust_env=False).is_success
    except httpx.HTTPError:
        return False
