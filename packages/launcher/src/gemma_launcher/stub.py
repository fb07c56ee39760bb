"""Watches the Python stubs of a tritonserver, which does not do it itself.

When a stub dies, tritonserver goes on, reports itself ready, and answers every request with
"Stub process is not healthy", for ever.
"""

import asyncio

import psutil

from gemma_launcher.child import Child
from gemma_launcher.triton import STUB

LOOK_EVERY_S = 0.25


async def stub_died(child: Child) -> str:
    """Returns when a stub that runs now has ended; a model without one is never in trouble."""
    stubs = _stubs(child.pid)
    while True:
        if dead := [stub.pid for stub in stubs if not _runs(stub)]:
            return f"lost its Python stub (process {dead[0]} died)"
        await asyncio.sleep(LOOK_EVERY_S)


def _stubs(server: int) -> list[psutil.Process]:
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
