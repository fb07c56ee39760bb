"""Keeps services running: start, watch, and start again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gemma_launcher.backoff import Backoff
from gemma_launcher.child import Child
from gemma_launcher.console import Console
from gemma_launcher.errors import CannotStart
from gemma_launcher.glog import Line

TRIES = 3
"""A service that was never ready is started so often before the launcher gives up."""

POLL_S = 0.25

T = TypeVar("T")

Watch = Callable[[Child], Coroutine[Any, Any, str]]
"""Returns what is wrong once something is; runs for ever while all is well."""


@dataclass
class Service:
    """Something to keep running.

    Args:
        awaited: for people, what a start waits for: ``Triton to load the model``.
        is_up: whether it has started, asked again and again until it has.
        start_limit_s: seconds it may take to start.
        grace_s: seconds it gets to end by itself when told to stop.
        read: a line of its output → lines for people.
        explain: the last lines of its output → why it failed to start.
        watches: run while it is up.
        start_watches: run while it starts.
        vital: whether all ends when it never comes up; else the others go on without it.
        look: called with its process id again and again while it starts.
        clean: called after its end, when none of its processes is left.
        up_since: monotonic seconds; none while it is down.
        was_up: whether it ever was.
        lost_at: when it was lost, monotonic seconds; none while nobody misses it.
    """

    name: str
    awaited: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    is_up: Callable[[], Awaitable[bool]]
    start_limit_s: float
    grace_s: float
    read: Callable[[str], list[Line]]
    explain: Callable[[Sequence[str]], str]
    watches: tuple[Watch, ...] = ()
    start_watches: tuple[Watch, ...] = ()
    vital: bool = True
    look: Callable[[int], None] = lambda _: None
    clean: Callable[[], None] = lambda: None
    up_since: float | None = field(default=None, init=False)
    was_up: bool = field(default=False, init=False)
    lost_at: float | None = field(default=None, init=False)

    def found(self) -> float | None:
        """Notes that it is up; for how many seconds it was missed, if it was."""
        now, lost_at = time.monotonic(), self.lost_at
        self.up_since, self.was_up, self.lost_at = now, True, None
        return None if lost_at is None else now - lost_at

    def lost(self) -> float:
        """Notes that it is down; for how many seconds it was up."""
        now, up_since = time.monotonic(), self.up_since
        if up_since is None:
            return 0.0
        self.up_since, self.lost_at = None, now
        return now - up_since


async def keep(service: Service, console: Console) -> None:
    """Runs a service until it is cancelled, which stops it within its grace.

    Raises:
        CannotStart: it is vital, failed several times and was never up.
    """
    backoff = Backoff()
    while True:
        trouble, healthy_s = await _one_life(service, console)
        backoff = backoff.after(healthy_s)
        if not service.was_up and backoff.failures >= TRIES:
            await _give_up(service, f"{service.name} {trouble}; gave up after {TRIES} tries", console)
        when = f"in {backoff.delay_s:.0f} s" if backoff.delay_s else "now"
        console.say(f"{service.name} {trouble}; starting it again {when}", "warning")
        await asyncio.sleep(backoff.delay_s)


async def _give_up(service: Service, sentence: str, console: Console) -> None:
    if service.vital:
        raise CannotStart(sentence)
    console.say(f"{sentence}; the rest goes on without it", "error")
    await _never()


async def _one_life(service: Service, console: Console) -> tuple[str, float]:
    """From start to end; returns what went wrong, and for how many seconds all was well before."""

    def show(raw: str) -> None:
        for line in service.read(raw):
            console.show(service.name, line)

    child = await Child.start(service.command, service.environment, show)
    grace_s = 0.0
    try:
        trouble = await first(child.ended(), _start_and_watch(service, child, console))
        trouble = child.end or trouble  # a dead server also loses its stub and its voice
    except asyncio.CancelledError:
        grace_s = service.grace_s
        raise
    finally:
        was_up, healthy_s = service.up_since is not None, service.lost()
        await child.stop(grace_s)
        service.clean()
    if not was_up:
        trouble += f" while starting: {service.explain([*child.last_lines])}"
    return trouble, healthy_s


async def _start_and_watch(service: Service, child: Child, console: Console) -> str:
    try:
        async with asyncio.timeout(service.start_limit_s):
            starts = (watch(child) for watch in service.start_watches)
            if trouble := await first(_until_up(service, child), *starts):
                return trouble
    except TimeoutError:
        return f"was not up after {service.start_limit_s:.0f} s"
    if missed_s := service.found():
        console.say(f"{service.name} is up again, after {missed_s:.0f} s")
    return await first(*(watch(child) for watch in service.watches), _never())


async def _until_up(service: Service, child: Child) -> str:
    """Waits until the service is up; no trouble."""
    while not await service.is_up():
        service.look(child.pid)
        await asyncio.sleep(POLL_S)
    return ""


async def _never() -> str:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")


async def first(*coroutines: Coroutine[Any, Any, T]) -> T:
    """The result of the one that ends first; the others are cancelled, and waited for."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def noting_its_end(coroutine: Coroutine[Any, Any, T], ended: asyncio.Event) -> T:
    """The same coroutine; ``ended`` is set when it is over, however."""
    try:
        return await coroutine
    finally:
        ended.set()


async def outliving(coroutine: Coroutine[Any, Any, T], others: asyncio.Event) -> T:
    """The same coroutine; cancelled, it goes on until the others' end."""
    task = asyncio.ensure_future(coroutine)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await others.wait()
        raise
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def silent(
    question: Callable[[], Awaitable[bool]], trouble: str, failures: int = 3, every_s: float = 1.0
) -> str:
    """Returns ``trouble`` when ``failures`` questions in a row got no answer.

    It counts questions, not seconds: after the whole machine was asleep only the one question that was
    under way can have failed.
    """
    missed = 0
    while missed < failures:
        await asyncio.sleep(every_s)
        missed = 0 if await question() else missed + 1
    return trouble
