"""Runs services: starts, monitors and restarts them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from gemma_launcher.console import Console, LogLine
from gemma_launcher.errors import CommandError
from gemma_launcher.processes.child_process import ChildProcess
from gemma_launcher.processes.restart_backoff import RestartBackoff

MAX_START_ATTEMPTS = 3
"""The launcher gives up on a service that was never ready after this many attempts."""

POLL_S = 0.25

T = TypeVar("T")

Monitor = Callable[[ChildProcess], Coroutine[Any, Any, str]]
"""Returns the reason once something is wrong; does not return while the service is healthy."""


class PermanentError(Exception):
    """A service cannot start with its settings. The message is one sentence."""


@dataclass
class Service:
    """A service to run.

    Args:
        name: the source of its log lines.
        startup_task: what a start waits for: ``Triton to load the model``.
        command: the program and its arguments.
        environment: its complete environment.
        is_ready: whether it has started; polled until it has.
        start_limit_s: seconds it may take to start.
        grace_s: seconds it may take to end after SIGTERM.
        parse_output: a line of its output → the lines to show.
        explain_failure: the last lines of its output → why it failed to start.
        permanent_error: the last lines of its output → a sentence if another attempt would fail in the same
            way, otherwise empty.
        monitors: run while it is ready.
        startup_monitors: run while it starts.
        required: whether the launcher ends if it never becomes ready.
        on_startup_poll: called with its process id at each poll while it starts.
        on_exit: called when all its processes have ended.
        ready_since: ``time.monotonic()``; ``None`` while it is not ready.
        was_ready: whether it was ever ready.
        down_since: ``time.monotonic()`` of its loss; ``None`` while it is ready and before the first start.
    """

    name: str
    startup_task: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    is_ready: Callable[[], Awaitable[bool]]
    start_limit_s: float
    grace_s: float
    parse_output: Callable[[str], list[LogLine]]
    explain_failure: Callable[[Sequence[str]], str]
    permanent_error: Callable[[Sequence[str]], str] = lambda _: ""
    monitors: tuple[Monitor, ...] = ()
    startup_monitors: tuple[Monitor, ...] = ()
    required: bool = True
    on_startup_poll: Callable[[int], None] = lambda _: None
    on_exit: Callable[[], None] = lambda: None
    ready_since: float | None = field(default=None, init=False)
    was_ready: bool = field(default=False, init=False)
    down_since: float | None = field(default=None, init=False)

    def mark_ready(self) -> float | None:
        """Records that it is ready; returns the seconds it was down, ``None`` at its first start."""
        now, down_since = time.monotonic(), self.down_since
        self.ready_since, self.was_ready, self.down_since = now, True, None
        return None if down_since is None else now - down_since

    def mark_down(self) -> float:
        """Records that it is down; returns the seconds it was ready."""
        now, ready_since = time.monotonic(), self.ready_since
        if ready_since is None:
            return 0.0
        self.ready_since, self.down_since = None, now
        return now - ready_since


async def supervise(service: Service, console: Console) -> None:
    """Runs a service until it is cancelled, which stops it.

    Raises:
        CommandError: it is required, was never ready, and failed ``MAX_START_ATTEMPTS`` times or permanently.
    """
    backoff = RestartBackoff()
    while True:
        try:
            reason, healthy_s = await _run_once(service, console)
        except PermanentError as error:
            await _give_up(service, console, str(error))
        backoff = backoff.after(healthy_s)
        if not service.was_ready and backoff.failures >= MAX_START_ATTEMPTS:
            sentence = f"{service.name} {reason}; gave up after {MAX_START_ATTEMPTS} attempts"
            await _give_up(service, console, sentence)
        when = f"in {backoff.delay_s:.0f} s" if backoff.delay_s else "now"
        console.log(f"{service.name} {reason}; restarting it {when}", "warning")
        await asyncio.sleep(backoff.delay_s)


async def _give_up(service: Service, console: Console, sentence: str) -> NoReturn:
    if service.required:
        raise CommandError(sentence)
    console.log(f"{sentence}; the other services continue without it", "error")
    await _wait_forever()


async def _run_once(service: Service, console: Console) -> tuple[str, float]:
    """Runs a service from its start to its end; returns what went wrong and how many seconds it was ready.

    Raises:
        PermanentError: it was never ready, and another attempt would fail in the same way.
    """

    def show(raw: str) -> None:
        for line in service.parse_output(raw):
            console.write_line(service.name, line)

    child = await ChildProcess.start(service.command, service.environment, show)
    grace_s = 0.0
    try:
        reason = await first_completed(child.wait(), _start_and_monitor(service, child, console))
        reason = child.exit_reason or reason  # the monitors of a dead process fail too
    except asyncio.CancelledError:
        grace_s = service.grace_s
        raise
    finally:
        was_ready, healthy_s = service.ready_since is not None, service.mark_down()
        await child.stop(grace_s)
        service.on_exit()
    if not service.was_ready and (error := service.permanent_error([*child.last_lines])):
        raise PermanentError(error)
    if not was_ready:
        reason += f" while starting: {service.explain_failure([*child.last_lines])}"
    return reason, healthy_s


async def _start_and_monitor(service: Service, child: ChildProcess, console: Console) -> str:
    try:
        async with asyncio.timeout(service.start_limit_s):
            monitors = (monitor(child) for monitor in service.startup_monitors)
            if reason := await first_completed(_wait_until_ready(service, child), *monitors):
                return reason
    except TimeoutError:
        return f"was not ready after {service.start_limit_s:.0f} s"
    if down_s := service.mark_ready():
        console.log(f"{service.name} is up again, after {down_s:.0f} s")
    return await first_completed(*(monitor(child) for monitor in service.monitors), _wait_forever())


async def _wait_until_ready(service: Service, child: ChildProcess) -> str:
    while not await service.is_ready():
        service.on_startup_poll(child.pid)
        await asyncio.sleep(POLL_S)
    return ""


async def _wait_forever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError("this event is never set")


async def first_completed(*coroutines: Coroutine[Any, Any, T]) -> T:
    """The result of the coroutine that completes first; the others are cancelled and awaited."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def set_when_done(coroutine: Coroutine[Any, Any, T], done: asyncio.Event) -> T:
    """Awaits the coroutine; sets ``done`` when it has ended, also by an exception."""
    try:
        return await coroutine
    finally:
        done.set()


async def outlive(coroutine: Coroutine[Any, Any, T], other_done: asyncio.Event) -> T:
    """Awaits the coroutine; when cancelled, cancels it only after ``other_done`` is set."""
    task = asyncio.ensure_future(coroutine)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await other_done.wait()
        raise
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def wait_until_unresponsive(
    check: Callable[[], Awaitable[bool]], reason: str, failures: int = 3, interval_s: float = 1.0
) -> str:
    """Returns ``reason`` after ``failures`` failed checks in a row.

    Failed checks are counted instead of seconds: after the machine was suspended, only one check has failed.
    """
    failed = 0
    while failed < failures:
        await asyncio.sleep(interval_s)
        failed = 0 if await check() else failed + 1
    return reason
