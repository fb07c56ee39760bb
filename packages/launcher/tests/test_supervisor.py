"""The supervisor with small programs instead of Triton."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from gemma_launcher import pylog, supervisor
from gemma_launcher.child import LONGEST_LINE, Child, lines
from gemma_launcher.console import Console
from gemma_launcher.errors import CannotStart
from gemma_launcher.supervisor import Service, Watch, first, keep, silent

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
    is_up: Callable[[], Awaitable[bool]] | None = None,
    watches: tuple[Watch, ...] = (),
    vital: bool = True,
) -> Service:
    return Service(
        name="triton",
        awaited="Triton",
        command=(sys.executable, "-c", code),
        environment=os.environ,
        is_up=is_up or yes,
        start_limit_s=5,
        grace_s=0.5,
        read=pylog.read,
        explain=pylog.why,
        watches=watches,
        vital=vital,
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the conditions are in other processes
            await asyncio.sleep(0.02)


async def test_what_ends_is_started_again_at_once_then_later(log: Log) -> None:
    task = asyncio.create_task(keep(service("import time; time.sleep(1)"), log.console))
    await until(lambda: "ended with exit code 0; starting it again in 1 s" in log())
    assert "ended with exit code 0; starting it again now" in log()
    assert "triton is up again, after 0 s" in log()
    await stop(task)


async def test_what_never_comes_up_is_given_up_with_its_last_words(log: Log) -> None:
    with pytest.raises(CannotStart, match=r"exit code 3 while starting: no luck; gave up after 3 tries"):
        await keep(service("print('no luck'); raise SystemExit(3)", is_up=no), log.console)


async def test_what_is_not_vital_is_given_up_and_ends_nothing(log: Log) -> None:
    kept = service("print('no luck'); raise SystemExit(3)", is_up=no, vital=False)
    task = asyncio.create_task(keep(kept, log.console))
    await until(lambda: "no luck; gave up after 3 tries; the rest goes on without it" in log())
    assert not task.done()
    await stop(task)


async def test_what_takes_too_long_to_come_up_is_started_again(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "TRIES", 1)
    slow = service(FOREVER, is_up=no)
    slow.start_limit_s = 2
    with pytest.raises(CannotStart, match="was not up after 2 s while starting: hello"):
        await keep(slow, log.console)


async def test_a_watch_that_finds_trouble_ends_the_whole_group(log: Log) -> None:
    lives: list[Child] = []

    async def trouble(child: Child) -> str:
        await until(lambda: child.last_lines)
        lives.append(child)
        return "hangs"

    grandchild = f"import subprocess; subprocess.Popen(['sleep', '60']); {STUBBORN}"
    task = asyncio.create_task(keep(service(grandchild, watches=(trouble,)), log.console))
    await until(lambda: "triton hangs; starting it again now" in log())
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
async def test_cancelling_stops_the_process_within_its_grace(log: Log, code: str) -> None:
    kept = service(code)
    task = asyncio.create_task(keep(kept, log.console))
    await until(lambda: "hello" in log())
    children = psutil.Process().children()
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(task, return_exceptions=True)
    assert not [child for child in children if child.is_running() and code in child.cmdline()]


async def test_the_end_is_seen_though_an_orphan_holds_the_pipe() -> None:
    leave = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); raise SystemExit(3)"
    child = await Child.start((sys.executable, "-c", leave), os.environ, lambda _: None)
    async with asyncio.timeout(5):
        assert await child.ended() == "ended with exit code 3"
        await until(lambda: child.last_lines)
        await child.stop(grace_s=1)
    assert is_zombie(int(child.last_lines[0]))


async def test_silence_needs_several_misses_in_a_row() -> None:
    answers = iter([True, False, False, True, False, False, False])
    asked = 0

    async def question() -> bool:
        nonlocal asked
        asked += 1
        return next(answers)

    assert await silent(question, "hangs", every_s=0) == "hangs"
    assert asked == 7


async def test_first_cancels_the_others_and_waits_for_them() -> None:
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

    assert await first(slow(), quick()) == "quick"
    assert cleaned.is_set()


async def test_lines_of_any_length_and_kind() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"one\n\xfftwo\n" + b"x" * (LONGEST_LINE + 5) + b"\nrest")
    stream.feed_eof()
    read = [line async for line in lines(stream)]
    assert read[:2] == ["one", "\ufffdtwo"]
    assert "".join(read[2:-1]) == "x" * (LONGEST_LINE + 5)
    assert read[-1] == "rest"
