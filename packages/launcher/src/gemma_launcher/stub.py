"""Watches the Python stubs of a tritonserver, which does not do it itself.

When a stub dies, tritonserver goes on, reports itself ready, and answers every request with
"Stub process is not healthy", for ever. A model that is loaded anew gets a new stub, and the old one ends.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from gemma_launcher.child import Child
from gemma_launcher.triton import STUB

LOOK_EVERY_S = 0.25


class StubDeaths:
    """Notes how stubs end while their server starts: the server itself only says that one is not healthy."""

    def __init__(self) -> None:
        self._killed_by = ""

    def look(self, server: int) -> None:
        """Looks for stubs that ended; the server leaves their traces in the process table."""
        for stub in _children(server):
            if not _runs(stub) and (number := _signal_of(stub.pid)):
                self._killed_by = signal.Signals(number).name

    def explain(self, reason: str) -> str:
        """The reason of a failed start, with the signal that the stub died of, if one was seen."""
        seen, self._killed_by = self._killed_by, ""
        return f"its Python stub was killed by {seen}" if seen and "is not healthy" in reason else reason


async def stub_died(child: Child, is_being_replaced: Callable[[], Awaitable[bool]]) -> str:
    """Returns when a stub has ended that nobody wanted to end; a model without one is never in trouble.

    Args:
        child: the server.
        is_being_replaced: whether the model is away on somebody's wish.
    """
    stubs = _stubs(child.pid)
    while True:
        if dead := [stub.pid for stub in stubs if not _runs(stub)]:
            others = _stubs(child.pid)
            if not others and not await is_being_replaced():
                return f"lost its Python stub (process {dead[0]} died)"
            stubs = others
        await asyncio.sleep(LOOK_EVERY_S)
        stubs = stubs or _stubs(child.pid)


def _stubs(server: int) -> list[psutil.Process]:
    """The stubs that live."""
    return [stub for stub in _children(server) if _runs(stub)]


def _children(server: int) -> list[psutil.Process]:
    """Its stubs, dead ones too as long as they are in the process table."""
    try:
        return [child for child in psutil.Process(server).children() if _is_stub(child)]
    except psutil.Error:  # the server is gone, which others notice
        return []


def _is_stub(process: psutil.Process) -> bool:
    try:
        return process.name()[:15] == STUB[:15]  # what the kernel keeps of a name, also of a zombie's
    except psutil.Error:  # it ended just now
        return False


def _runs(process: psutil.Process) -> bool:
    """Alive and no zombie: tritonserver does not clear away its dead stub."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal_of(pid: int) -> int:
    """The signal that a zombie died of; 0 when it was none, or cannot be seen."""
    try:
        after_name = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        )
        return int(after_name.split()[-1]) & 0x7F  # the last field is the status that its parent would get
    except (OSError, ValueError, IndexError):
        return 0
