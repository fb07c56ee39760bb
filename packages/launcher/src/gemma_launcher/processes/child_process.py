"""A child process in a process group of its own, whose output is read line by line."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Self

import psutil

MAX_LINE_BYTES = 16_384
"""Longer lines are split."""
KEPT_LINES = 200
"""How many of the last lines are kept, to explain a failure."""

POLL_S = 0.05


class ChildProcess:
    """Started with ``start`` and stopped with ``stop``, which kills the complete process group.

    ``asyncio.subprocess`` is not used: its ``wait`` returns when the pipe is closed, but a Python backend
    stub that outlives its tritonserver, or is suspended, keeps the pipe open.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", on_line: Callable[[str], None]) -> None:
        self.pid = process.pid
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.line_count = 0
        self._process = process
        self._reading = asyncio.create_task(self._read(on_line))

    @classmethod
    async def start(
        cls, command: tuple[str, ...], environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Self:
        """Starts a process in a new session, and so in a new process group.

        Args:
            command: the program and its arguments.
            environment: its complete environment.
            on_line: called with each line of its output and errors.
        """
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns after fork and exec
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(process, on_line)

    @property
    def exit_reason(self) -> str:
        """How it ended; empty while it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def wait(self) -> str:
        """Waits until it ends; returns ``exit_reason``."""
        while not (reason := self.exit_reason):  # noqa: ASYNC110 - see above
            await asyncio.sleep(POLL_S)
        return reason

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then after ``grace_s`` seconds SIGKILL; returns when no process of the group is left."""
        if grace_s > 0:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace_s)
        _kill_group(self.pid)
        await self.wait()
        while any(_is_running_member(pid, self.pid) for pid in psutil.pids()):
            _kill_group(self.pid)
            await asyncio.sleep(POLL_S)
        _reap_zombies(self.pid)
        # Only a descendant that left the group can still hold the pipe open.
        _, unfinished = await asyncio.wait([self._reading], timeout=1.0)
        for task in unfinished:
            task.cancel()

    async def _read(self, on_line: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), self._process.stdout
        )
        try:
            async for line in read_lines(stream):
                self.last_lines.append(line)
                self.line_count += 1
                on_line(line)
        finally:
            transport.close()


async def read_lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines of a stream, without their newlines."""
    rest = b""
    while data := await stream.read(65_536):
        *complete, rest = (rest + data).split(b"\n")
        for line in complete:
            yield line.decode(errors="replace")
        while len(rest) > MAX_LINE_BYTES:
            yield rest[:MAX_LINE_BYTES].decode(errors="replace")
            rest = rest[MAX_LINE_BYTES:]
    if rest:
        yield rest.decode(errors="replace")


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _is_running_member(pid: int, group: int) -> bool:
    """Whether the process belongs to the group. Zombies do not count: nobody may ever reap them."""
    try:
        if os.getpgid(pid) != group:
            return False
        process = psutil.Process(pid)
        # While a thread runs, memory and files are in use, even if the main thread is a zombie.
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except (ProcessLookupError, psutil.Error):
        return False


def _reap_zombies(group: int) -> None:
    """Reaps the zombies of a group whose leader has ended.

    As process 1 of a container, the launcher becomes the parent of orphans and is the only one to reap them.
    """
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
