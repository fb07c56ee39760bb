"""Monitors the Python backend stubs of a tritonserver, which does not do this itself.

When a stub dies, tritonserver stays ready and responds to every request with "Stub process is not healthy". A
model that is loaded again gets a new stub, and the old one ends.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from gemma_launcher.processes.child_process import ChildProcess
from gemma_launcher.processes.triton_server import STUB_NAME

POLL_S = 0.25


class StubExitRecorder:
    """Records the signal that killed a stub during startup; tritonserver only reports it as not healthy."""

    def __init__(self) -> None:
        self._killed_by = ""

    def record(self, server: int) -> None:
        """Looks for stubs that have ended; tritonserver leaves them in the process table."""
        for stub in _stubs(server):
            if not _is_running(stub) and (number := _exit_signal(stub.pid)):
                self._killed_by = signal.Signals(number).name

    def explain(self, reason: str) -> str:
        """The reason of a failed start, replaced by the signal that killed the stub, if one was recorded."""
        killed_by, self._killed_by = self._killed_by, ""
        died = killed_by and "is not healthy" in reason
        return f"its Python stub was killed by {killed_by}" if died else reason


async def wait_for_stub_exit(child: ChildProcess, is_being_replaced: Callable[[], Awaitable[bool]]) -> str:
    """Returns the reason once a stub has ended unexpectedly. A model without a stub is no failure.

    Args:
        child: the tritonserver.
        is_being_replaced: whether the model is unloaded because somebody requested that.
    """
    stubs = _running_stubs(child.pid)
    while True:
        if dead := [stub.pid for stub in stubs if not _is_running(stub)]:
            others = _running_stubs(child.pid)
            if not others and not await is_being_replaced():
                return f"lost its Python stub (process {dead[0]} died)"
            stubs = others
        await asyncio.sleep(POLL_S)
        stubs = stubs or _running_stubs(child.pid)


def _running_stubs(server: int) -> list[psutil.Process]:
    return [stub for stub in _stubs(server) if _is_running(stub)]


def _stubs(server: int) -> list[psutil.Process]:
    """The stubs in the process table, including zombies."""
    try:
        return [child for child in psutil.Process(server).children() if _is_stub(child)]
    except psutil.Error:  # the server has ended, which is detected elsewhere
        return []


def _is_stub(process: psutil.Process) -> bool:
    try:
        return process.name()[:15] == STUB_NAME[:15]  # the kernel keeps 15 bytes of a zombie's name
    except psutil.Error:
        return False


def _is_running(process: psutil.Process) -> bool:
    """Whether it is alive and not a zombie; tritonserver does not reap its stub."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _exit_signal(pid: int) -> int:
    """The signal that killed a zombie; 0 if there was none or it cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.split()[-1]) & 0x7F  # the last field is the exit status, see proc(5)
    except (OSError, ValueError, IndexError):
        return 0
