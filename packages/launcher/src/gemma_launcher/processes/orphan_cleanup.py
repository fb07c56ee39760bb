"""Removes everything a launcher left behind, however it ended: Ctrl-C, an exception, or kill -9.

This script runs as a process of its own. It waits until its standard input is closed, a pipe whose other end
only the launcher holds. Everything that belongs to a run carries the run's name, so no list is needed: its
processes have the name in their environment, which child processes inherit; its temporary folder has that
name; the names of its shared memory files start with it.

It uses the standard library only: it starts in milliseconds and works without the virtual environment.
Its command line ("python orphan_cleanup.py") is not matched by a search for the launcher.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

RUN_VARIABLE = "GEMMA_LAUNCHER_RUN"
SHARED_MEMORY = Path("/dev/shm")
KILL_TIMEOUT_S = 8.0  # a process in an uninterruptible wait can survive even SIGKILL


def run_folder(name: str) -> Path:
    """The temporary folder of the run."""
    return Path(tempfile.gettempdir()) / name


def find_processes(name: str) -> list[int]:
    """The process ids of the run, without this process."""
    entry = f"\0{RUN_VARIABLE}={name}\0".encode()
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if path.name.isdecimal()]
    return [pid for pid in pids if pid != os.getpid() and entry in b"\0" + _environ(pid)]


def kill_processes(name: str) -> None:
    """Sends SIGKILL to the processes of the run until two searches in a row find none.

    Two are needed because a child between fork and exec still has the environment of its parent.
    """
    empty, deadline = 0, time.monotonic() + KILL_TIMEOUT_S
    while empty < 2 and time.monotonic() < deadline:
        found = find_processes(name)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        empty = 0 if found else empty + 1
        time.sleep(0.05)


def remove_shared_memory(name: str) -> None:
    """Removes the shared memory files of the run, which a killed tritonserver leaves."""
    for path in SHARED_MEMORY.glob(f"{name}*"):
        path.unlink(missing_ok=True)


def end_run(name: str) -> None:
    """Kills the processes of the run and removes its files."""
    kill_processes(name)
    remove_shared_memory(name)
    shutil.rmtree(run_folder(name), ignore_errors=True)


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended, or belongs to another user
        return b""


def main() -> None:
    """Waits until the launcher has ended, then ends the run named in the environment."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    sys.stdin.buffer.read()
    end_run(os.environ[RUN_VARIABLE])


if __name__ == "__main__":
    main()
