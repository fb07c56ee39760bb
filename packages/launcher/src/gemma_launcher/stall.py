"""Notices a service that hangs while it starts: it may take half an hour to load, but not do nothing."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from gemma_launcher.child import Child
from gemma_launcher.supervisor import first, silent

STALL_LIMIT_S: Final = 120
"""So many looks in a row, a second apart, without progress are a hang."""

PROGRESS_CPU_S: Final = 0.5
"""CPU time that counts as progress. A tritonserver whose model process sleeps used 0.01 s in 20
seconds, measured once: about 0.06 s in ``STALL_LIMIT_S`` seconds."""

UNANSWERED: Final = "hangs: it accepts connections and does not answer"
PROGRESS_BYTES: Final = 1_000_000
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Work(NamedTuple):
    """What the processes of a service have done so far.

    Args:
        cpu_s: CPU time, seconds.
        read: bytes read, from files and by page faults.
        lines: of output.
    """

    cpu_s: float
    read: float
    lines: int

    def is_progress_since(self, before: "Work") -> bool:
        """Whether that is more than an idle process does."""
        return (
            abs(self.cpu_s - before.cpu_s) >= PROGRESS_CPU_S
            or abs(self.read - before.read) >= PROGRESS_BYTES
            or self.lines != before.lines
        )


async def hangs_while_starting(child: Child, is_silent: Callable[[], Awaitable[bool]]) -> str:
    """Returns the trouble when a service that has not come up hangs.

    Args:
        child: the service.
        is_silent: whether it accepts a connection and then does not answer.
    """

    async def answers() -> bool:
        return not await is_silent()

    return await first(silent(answers, UNANSWERED), _stands_still(child))


async def _stands_still(child: Child) -> str:
    before, idle = work_of(child), 0
    while idle < STALL_LIMIT_S:
        await asyncio.sleep(1.0)
        now = work_of(child)
        if now.is_progress_since(before):
            before, idle = now, 0
        else:
            idle += 1
    return f"hangs: it computed, read and printed nothing for {STALL_LIMIT_S} s"


def work_of(child: Child) -> Work:
    """What the service's processes have done so far."""
    cpu_s, read = 0.0, 0.0
    for pid in _group(child.pid):
        own_cpu_s, own_read = _work_of(pid)
        cpu_s, read = cpu_s + own_cpu_s, read + own_read
    return Work(cpu_s, read, child.printed)


def _group(leader: int) -> list[int]:
    try:
        children = psutil.Process(leader).children(recursive=True)
    except psutil.Error:
        return []
    return [leader, *(child.pid for child in children)]


def _work_of(pid: int) -> tuple[float, float]:
    """CPU seconds and bytes read of one process; nothing of one that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        io = Path(f"/proc/{pid}/io").read_text(encoding="utf-8")
    except OSError:
        return 0.0, 0.0
    fields = stat.rpartition(")")[2].split()
    major_faults, user, system = (int(fields[place]) for place in (9, 11, 12))
    read = next(int(line.split()[1]) for line in io.splitlines() if line.startswith("rchar"))
    return (user + system) / _CLOCK_TICKS, read + major_faults * _PAGE
