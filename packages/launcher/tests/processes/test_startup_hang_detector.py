"""Detection of hangs during startup, with small programs instead of Triton."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gemma_launcher.processes import startup_hang_detector
from gemma_launcher.processes.child_process import ChildProcess
from gemma_launcher.processes.health_probe import HealthProbe
from gemma_launcher.processes.ports import find_free_port

SLEEPS = "import time; time.sleep(60)"
COMPUTES = "while True: pass"
READS = """
import time
with open("/dev/zero", "rb") as file:
    while True:
        file.read(2_000_000)
        time.sleep(0.3)
"""
PRINTS = "import time\nwhile True: print('still here', flush=True); time.sleep(0.3)"
LISTENS = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
time.sleep(60)
"""


@asynccontextmanager
async def running(code: str, *arguments: str) -> AsyncIterator[ChildProcess]:
    child = await ChildProcess.start((sys.executable, "-c", code, *arguments), os.environ, lambda _: None)
    try:
        yield child
    finally:
        await child.stop(0)


async def no() -> bool:
    return False


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_hang_detector, "STALL_LIMIT_S", 3)


@pytest.mark.usefixtures("soon")
async def test_an_inactive_process_hangs() -> None:
    async with running(SLEEPS) as child, asyncio.timeout(30):
        trouble = await startup_hang_detector.detect_startup_hang(child, no)
    assert trouble == "hangs: it computed, read and printed nothing for 3 s"


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("code", [COMPUTES, READS, PRINTS])
async def test_an_active_process_does_not_hang(code: str) -> None:
    async with running(code) as child:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(6):
                await startup_hang_detector.detect_startup_hang(child, no)


@pytest.mark.usefixtures("soon")
async def test_the_activity_of_descendants_counts() -> None:
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {COMPUTES!r}])"
    async with running(inner) as child:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(6):
                await startup_hang_detector.detect_startup_hang(child, no)


async def test_a_process_that_accepts_connections_without_responding_hangs() -> None:
    port = find_free_port("127.0.0.1")
    async with HealthProbe(f"http://127.0.0.1:{port}", timeout_s=0.2) as probe:
        assert not await probe.is_silent("/"), "it does not listen yet, and may be loading"
        async with running(LISTENS, str(port)) as child, asyncio.timeout(30):
            while not child.last_lines:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)
            trouble = await startup_hang_detector.detect_startup_hang(child, lambda: probe.is_silent("/"))
    assert trouble == startup_hang_detector.UNRESPONSIVE
