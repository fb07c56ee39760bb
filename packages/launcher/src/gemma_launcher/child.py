"""A child process in a group of its own, whose output is read line by line."""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Self

import psutil

LONGEST_LINE = 16_384  # bytes; more is cut into lines of this length
KEPT_LINES = 200
"""So many of the last lines are kept, to find out why it ended."""


class Child:
    """Started with ``start``, ended with ``stop``; both see to the whole process group."""

    def __init__(self, process: asyncio.subprocess.Process, show: Callable[[str], None]) -> None:
        self.pid = process.pid
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._process = process
        self._reading = asyncio.create_task(self._read(show))

    @classmethod
    async def start(
        cls, command: tuple[str, ...], environment: Mapping[str, str], show: Callable[[str], None]
    ) -> Self:
        """Starts a process in a session, and so a process group, of its own.

        Args:
            command: the program and its arguments.
            environment: all of it.
            show: called with each line of its output and errors.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(process, show)

    async def ended(self) -> str:
        """Waits for its end, and says how it ended."""
        code = await self._process.wait()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, at most ``grace_s`` seconds of patience, then SIGKILL to the group; none is left."""
        if grace_s > 0 and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace_s)
        await self._kill()

    async def _kill(self) -> None:
        _kill_group(self.pid)
        await self._process.wait()
        while _lives(self.pid):
            _kill_group(self.pid)
            await asyncio.sleep(0.02)
        _bury(self.pid)
        # The group is gone; only a descendant that left the group could still hold the pipe.
        _, unfinished = await asyncio.wait([self._reading], timeout=1.0)
        for task in unfinished:
            task.cancel()

    async def _read(self, show: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        async for line in lines(self._process.stdout):
            self.last_lines.append(line)
            show(line)


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines of a stream, without their newlines."""
    rest = b""
    while data := await stream.read(65_536):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
        while len(rest) > LONGEST_LINE:
            yield rest[:LONGEST_LINE].decode(errors="replace")
            rest = rest[LONGEST_LINE:]
    if rest:
        yield rest.decode(errors="replace")


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _lives(group: int) -> bool:
    """Whether a process of the group is left. Zombies do not count: nobody may ever clear them away."""
    return any(_belongs(pid, group) for pid in psutil.pids())


def _belongs(pid: int, group: int) -> bool:
    try:
        if os.getpgid(pid) != group:
            return False
        process = psutil.Process(pid)
        # While a thread is left, so are memory and files, even if the first thread is a zombie.
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except (ProcessLookupError, psutil.Error):
        return False


def _bury(group: int) -> None:
    """Clears away the dead of a group whose leader is gone.

    As process 1 of a container we are handed its orphans, and nobody else does it.
    """
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
