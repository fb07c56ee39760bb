"""The supervisor, with small programs instead of Triton."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from gemma_launcher.console import Console
from gemma_launcher.errors import CommandError
from gemma_launcher.processes import python_log, supervisor
from gemma_launcher.processes.child_process import MAX_LINE_BYTES, ChildProcess, read_lines
from gemma_launcher.processes.supervisor import (
    Monitor,
    Service,
    first_completed,
    supervise,
    wait_until_unresponsive,
)

FOREVER = "print('hello', flush=True); import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}"


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Callable[[], str]]:
    path = tmp_path / "log"
    with path.open("wb") as file:
        console = Console(file.fileno())
        read = Log(path, console)
        yield read
        console.close()


class Log:
    def __init__(self, path: Path, console: Console) -> None:
        self.path, self.console = path, console

    def __call__(self) -> str:
        return self.path.read_text()


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def service(
    code: str,
    is_ready: Callable[[], Awaitable[bool]] | None = None,
    monitors: tuple[Monitor, ...] = (),
    required: bool = True,
) -> Service:
    return Service(
        name="triton",
        startup_task="Triton",
        command=(sys.executable, "-c", code),
        environment=os.environ,
        is_ready=is_ready or yes,
        start_limit_s=5,
        grace_s=0.5,
        parse_output=python_log.parse_line,
        explain_failure=python_log.failure_reason,
        monitors=monitors,
        required=required,
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the conditions are in other processes
            await asyncio.sleep(0.02)


async def test_restarts_are_immediate_and_then_delayed(log: Log) -> None:
    task = asyncio.create_task(supervise(service("import time; time.sleep(1)"), log.console))
    await until(lambda: "ended with exit code 0; restarting it in 1 s" in log())
    assert "ended with exit code 0; restarting it now" in log()
    assert "triton is up again, after 0 s" in log()
    await stop(task)


async def test_it_gives_up_on_a_required_service_with_its_last_output(log: Log) -> None:
    with pytest.raises(CommandError, match=r"exit code 3 while starting: no luck; gave up after 3 attempts"):
        await supervise(service("print('no luck'); raise SystemExit(3)", is_ready=no), log.console)


async def test_it_does_not_retry_what_cannot_succeed(log: Log) -> None:
    refusing = service("print('no luck'); raise SystemExit(1)", is_ready=no)
    refusing.permanent_error = lambda lines: f"GEMMA_X is wrong: {lines[-1]}"
    with pytest.raises(CommandError, match=r"^GEMMA_X is wrong: no luck$"):
        await supervise(refusing, log.console)
    assert "restarting" not in log()


async def test_it_restarts_what_was_ready_once(log: Log) -> None:
    changed = service("import time; time.sleep(1)")
    changed.permanent_error = lambda _: "GEMMA_X is wrong"
    task = asyncio.create_task(supervise(changed, log.console))
    await until(lambda: "ended with exit code 0; restarting it now" in log())
    await stop(task)


async def test_it_continues_without_an_optional_service(log: Log) -> None:
    kept = service("print('no luck'); raise SystemExit(3)", is_ready=no, required=False)
    task = asyncio.create_task(supervise(kept, log.console))
    await until(lambda: "no luck; gave up after 3 attempts; the other services continue without it" in log())
    assert not task.done()
    await stop(task)


async def test_the_start_limit(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MAX_START_ATTEMPTS", 1)
    slow = service(FOREVER, is_ready=no)
    slow.start_limit_s = 2
    with pytest.raises(CommandError, match="was not ready after 2 s while starting: hello"):
        await supervise(slow, log.console)


async def test_a_failed_monitor_kills_the_process_group(log: Log) -> None:
    lives: list[ChildProcess] = []

    async def trouble(child: ChildProcess) -> str:
        await until(lambda: child.last_lines)
        lives.append(child)
        return "hangs"

    grandchild = f"import subprocess; subprocess.Popen(['sleep', '60']); {STUBBORN}"
    task = asyncio.create_task(supervise(service(grandchild, monitors=(trouble,)), log.console))
    await until(lambda: "triton hangs; restarting it now" in log())
    assert not [pid for pid in psutil.pids() if group(pid) == lives[0].pid and not is_zombie(pid)]
    await stop(task)


async def stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("code", [FOREVER, STUBBORN])
async def test_cancellation_stops_the_process_within_its_grace(log: Log, code: str) -> None:
    kept = service(code)
    task = asyncio.create_task(supervise(kept, log.console))
    await until(lambda: "hello" in log())
    children = psutil.Process().children()
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(task, return_exceptions=True)
    assert not [child for child in children if child.is_running() and code in child.cmdline()]


async def test_the_exit_is_detected_while_an_orphan_holds_the_pipe() -> None:
    leave = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); raise SystemExit(3)"
    child = await ChildProcess.start((sys.executable, "-c", leave), os.environ, lambda _: None)
    async with asyncio.timeout(5):
        assert await child.wait() == "ended with exit code 3"
        await until(lambda: child.last_lines)
        await child.stop(grace_s=1)
    assert is_zombie(int(child.last_lines[0]))


async def test_unresponsive_means_several_failures_in_a_row() -> None:
    answers = iter([True, False, False, True, False, False, False])
    asked = 0

    async def question() -> bool:
        nonlocal asked
        asked += 1
        return next(answers)

    assert await wait_until_unresponsive(question, "hangs", interval_s=0) == "hangs"
    assert asked == 7


async def test_first_completed_cancels_and_awaits_the_others() -> None:
    cleaned = asyncio.Event()

    async def slow() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.set()
        return "slow"

    async def quick() -> str:
        await asyncio.sleep(0)
        return "quick"

    assert await first_completed(slow(), quick()) == "quick"
    assert cleaned.is_set()


async def test_read_lines() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"one\n\xfftwo\n" + b"x" * (MAX_LINE_BYTES + 5) + b"\nrest")
    stream.feed_eof()
    read = [line async for line in read_lines(stream)]
    assert read[:2] == ["one", "\ufffdtwo"]
    assert "".join(read[2:-1]) == "x" * (MAX_LINE_BYTES + 5)
    assert read[-1] == "rest"
