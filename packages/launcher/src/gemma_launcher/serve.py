"""``gemma-triton serve``: look, start, watch, stop."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from gemma_launcher import preflight, services, triton
from gemma_launcher.announce import Announcer
from gemma_launcher.banner import api_url, playground_url
from gemma_launcher.console import Console, wants_colour
from gemma_launcher.ownership import Ownership
from gemma_launcher.preflight import Embedded
from gemma_launcher.probe import Probe
from gemma_launcher.settings import Settings
from gemma_launcher.supervisor import Service, first, keep, noting_its_end, outliving
from gemma_launcher.triton_address import TritonAddress

STOP_MARGIN_S = 4.0
"""So long after the time that open answers have (API_SHUTDOWN_SECONDS) whatever still runs is killed."""


def run(settings: Settings) -> int:
    """Serves until a signal comes, and returns the exit code.

    Raises:
        CannotStart: a look before the start found trouble, or a service never came up.
    """
    started = time.monotonic()
    console = Console(colour=wants_colour(1))
    try:
        settings = preflight.without_what_is_missing(settings, console.say)
        settings = preflight.with_free_ports(settings)
        with Ownership() as own:
            end = _ender(own, console)
            for number in _signals():
                signal.signal(number, lambda *_: end())
            embedded = preflight.check(settings, own, console)
            asyncio.run(_serve(settings, own, console, embedded, started))
    finally:
        console.close()
    return 0


async def _serve(
    settings: Settings, own: Ownership, console: Console, embedded: Embedded | None, started: float
) -> None:
    """Runs the services until a signal comes or one that is vital cannot be started."""
    async with AsyncExitStack() as stack:
        probe = await stack.enter_async_context(Probe(api_url(settings), timeout_s=8.0))
        address = embedded.address if embedded else None
        gateway, others = _gateway(settings, own, probe, address), []
        if embedded is not None:
            http = Probe(embedded.address.http_url, socket=embedded.address.http_socket)
            others.append(_triton(settings, own, embedded, await stack.enter_async_context(http)))
        if settings.gemma_playground:
            page = await stack.enter_async_context(Probe(playground_url(settings)))
            others.append(_playground(settings, own, page, console))
        console.say(f"starting {' and '.join(service.name for service in (gateway, *others))}")
        note = embedded.checkpoint.note if embedded else ""
        for line in note.splitlines():
            console.say(line)
        gateway_ended = asyncio.Event()
        await first(
            _until_signal(settings, own, console),
            _guard(own),
            Announcer(settings, console, probe, (gateway, *others), note).run(started),
            noting_its_end(keep(gateway, console), gateway_ended),
            # After it: Triton is what its open answers come from, the playground where some of them go.
            *(outliving(keep(service, console), gateway_ended) for service in others),
        )


def _triton(settings: Settings, own: Ownership, embedded: Embedded, probe: Probe) -> Service:
    wheel, address = embedded.wheel, embedded.address
    command = triton.command(settings, address, wheel, embedded.repository, own.folder, own.name)
    environment = services.triton_environment(
        own.mark(os.environ), wheel, own.folder, settings, embedded.checkpoint
    )

    def clean() -> None:
        own.sweep_shared_memory()
        address.unlink_sockets()

    return services.triton_service(command, environment, probe, settings, clean)


def _gateway(settings: Settings, own: Ownership, probe: Probe, address: TritonAddress | None) -> Service:
    environment = services.gateway_environment(own.mark(os.environ), settings, address)
    return services.gateway_service(environment, probe, settings)


def _playground(settings: Settings, own: Ownership, probe: Probe, console: Console) -> Service:
    base = services.with_key(own.mark(os.environ), settings)
    if worry := services.worry_about_key(base, settings):
        console.say(worry, "warning")
    environment = services.playground_environment(base, settings, f"{api_url(settings)}/v1")
    return services.playground_service(environment, probe)


async def _until_signal(settings: Settings, own: Ownership, console: Console) -> None:
    """Returns at the first signal; a second one, or too much time, ends everything at once."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    end = _ender(own, console)

    def stop() -> None:
        if stopped.is_set():
            end()
        stopped.set()
        loop.call_later(settings.api_shutdown_seconds + STOP_MARGIN_S, end)

    for number in _signals():
        loop.add_signal_handler(number, stop)
    await stopped.wait()
    console.say("stopping; once more to stop at once")


async def _guard(own: Ownership) -> None:
    """The reaper must outlive everybody."""
    while True:
        await asyncio.sleep(1.0)
        own.guard()


def _ender(own: Ownership, console: Console) -> Callable[[], None]:
    def end() -> None:
        """Kills everything and leaves, whatever was going on."""
        own.release()
        console.close()
        os._exit(0)

    return end


def _signals() -> tuple[signal.Signals, ...]:
    """The signals that stop; a hang-up that was to be ignored (nohup) stays ignored."""
    hang_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return signal.SIGINT, signal.SIGTERM, *hang_up
