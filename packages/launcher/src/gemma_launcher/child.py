"""A child process in a group of its own, whose output is read line by line."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Self

import psutil

LONGEST_LINE = 16_384  # bytes; more is cut into lines of this length
KEPT_LINES = 200
"""So many of the last lines are kept, to find out why it ended."""

POLL_S = 0.05


class Child:
    """Started with ``start``, ended with ``stop``; both see to the whole process group.

    asyncio's own subprocesses are of no use here: their ``wait`` returns when the pipe is closed, and a
    stub that outlives its tritonserver, or is stopped, keeps it open.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", show: Callable[[str], None]) -> None:
        self.pid = process.pid
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.printed = 0  # lines so far
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
        return cls(_spawn(command, environment), show)

    @property
    def end(self) -> str:
        """How it ended; empty while it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def ended(self) -> str:
        """Waits for its end, and says how it ended."""
        while True:
            if end := self.end:
                return end
            await asyncio.sleep(POLL_S)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, at most ``grace_s`` seconds of patience, then SIGKILL to the group; none is left."""
        if grace_s > 0:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended(), grace_s)
        _kill_group(self.pid)
        await self.ended()
        while _lives(self.pid):
            _kill_group(self.pid)
            await asyncio.sleep(POLL_S)
        _bury(self.pid)
        await self._finish_reading()

    async def _finish_reading(self) -> None:
        """The group is gone; only a descendant that left the group could still hold the pipe."""
        _, unfinished = await asyncio.wait([self._reading], timeout=1.0)
        for task in unfinished:
            task.cancel()

    async def _read(self, show: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), self._process.stdout
        )
        try:
            async for line in lines(stream):
                self.last_lines.append(line)
                self.printed += 1
                show(line)
        finally:
            transport.close()


def _spawn(command: tuple[str, ...], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


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
