"""Detects a service that hangs while it starts: loading may take long, but not without any activity."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import psutil

from gemma_launcher.processes.child_process import ChildProcess
from gemma_launcher.processes.supervisor import first_completed, wait_until_unresponsive

STALL_LIMIT_S: Final = 120
"""After so many checks, one per second, without activity the service hangs."""

MIN_CPU_S: Final = 0.5
"""CPU time that counts as activity. A tritonserver whose model process sleeps used 0.01 s in 20 seconds,
measured once: about 0.06 s in ``STALL_LIMIT_S`` seconds."""

MIN_BYTES: Final = 1_000_000
UNRESPONSIVE: Final = "hangs: it accepts connections and does not respond"


class ProcessActivity(NamedTuple):
    """What the processes of a service have done so far.

    Args:
        cpu_s: CPU time, seconds.
        read: bytes read, by system calls and from storage (which includes page faults of mapped files).
        lines: lines of output.
    """

    cpu_s: float
    read: int
    lines: int

    def is_active_since(self, before: "ProcessActivity") -> bool:
        """Whether there was more activity than that of an idle process."""
        return (
            abs(self.cpu_s - before.cpu_s) >= MIN_CPU_S
            or abs(self.read - before.read) >= MIN_BYTES
            or self.lines != before.lines
        )


async def detect_startup_hang(child: ChildProcess, is_silent: Callable[[], Awaitable[bool]]) -> str:
    """Returns the reason once a service that is not ready yet hangs.

    Args:
        child: the service.
        is_silent: whether it accepts a connection and then does not respond.
    """

    async def responds() -> bool:
        return not await is_silent()

    return await first_completed(wait_until_unresponsive(responds, UNRESPONSIVE), _wait_until_stalled(child))


async def _wait_until_stalled(child: ChildProcess) -> str:
    before, idle = measure_activity(child), 0
    while idle < STALL_LIMIT_S:
        await asyncio.sleep(1.0)
        now = measure_activity(child)
        if now.is_active_since(before):
            before, idle = now, 0
        else:
            idle += 1
    return f"hangs: it computed, read and printed nothing for {STALL_LIMIT_S} s"


def measure_activity(child: ChildProcess) -> ProcessActivity:
    """The activity of the child process and its descendants."""
    cpu_s, read = 0.0, 0
    try:
        leader = psutil.Process(child.pid)
        processes = [leader, *leader.children(recursive=True)]
    except psutil.Error:
        processes = []
    for process in processes:
        try:
            times, io = process.cpu_times(), process.io_counters()
        except psutil.Error:  # it has ended
            continue
        cpu_s, read = cpu_s + times.user + times.system, read + io.read_chars + io.read_bytes
    return ProcessActivity(cpu_s, read, child.line_count)
