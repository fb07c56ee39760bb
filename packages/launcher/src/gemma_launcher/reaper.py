"""Ends whatever a launcher left behind, however it went: Ctrl-C, an exception, or kill -9.

It runs as a process of its own and waits for the end of its standard input, a pipe that only the
launcher holds open. Everything that a run owns bears the run's name, so there is no list to keep: its
processes have the name in their environment (children inherit it, through any fork, exec or setsid),
its temporary folder, which is theirs too, is called so, and its shared memory files start with it.

Standard library only, and no imports from this package: it starts in milliseconds, works without the
virtual environment, and its command line ("python reaper.py") does not match a search for the launcher.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

MARK = "GEMMA_LAUNCHER_RUN"
SHARED_MEMORY = Path("/dev/shm")
PATIENCE_S = 8.0  # a process in an uninterruptible wait can outlive even SIGKILL


def folder(name: str) -> Path:
    """The temporary folder of the run called ``name``."""
    return Path(tempfile.gettempdir()) / name


def members(name: str) -> list[int]:
    """The process ids that belong to the run called ``name``, this process excepted."""
    entry = f"\0{MARK}={name}\0".encode()
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if pid != os.getpid() and entry in b"\0" + _environ(pid)]


def kill(name: str) -> None:
    """SIGKILL to every member, until two looks in a row find none.

    Twice, because between fork and exec a child still shows the environment of its parent.
    """
    clean, deadline = 0, time.monotonic() + PATIENCE_S
    while clean < 2 and time.monotonic() < deadline:
        found = members(name)
        for pid in found:
            _signal(pid)
        clean = 0 if found else clean + 1
        time.sleep(0.05)


def sweep_shared_memory(name: str) -> None:
    """Removes the shared memory files of the run; a tritonserver that is killed leaves them."""
    for path in SHARED_MEMORY.glob(f"{name}*"):
        path.unlink(missing_ok=True)


def end(name: str) -> None:
    """Ends the run called ``name`` and removes its files."""
    kill(name)
    sweep_shared_memory(name)
    shutil.rmtree(folder(name), ignore_errors=True)


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone already, or another user's
        return b""


def _signal(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Waits for the launcher's end, then ends the run named in the environment."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    sys.stdin.buffer.read()
    end(os.environ[MARK])


if __name__ == "__main__":
    main()
