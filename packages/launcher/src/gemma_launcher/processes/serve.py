"""``gemma-triton serve``: checks, starts, monitors and stops Triton, the gateway and the playground."""

import asyncio
import os
import signal
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import AsyncExitStack

from gemma_launcher.addresses import api_url, playground_url
from gemma_launcher.console import Console, wants_colour
from gemma_launcher.processes import preflight, services, triton_server
from gemma_launcher.processes.health_probe import HealthProbe
from gemma_launcher.processes.preflight import EmbeddedTriton
from gemma_launcher.processes.run_scope import RunScope
from gemma_launcher.processes.startup_reporter import StartupReporter
from gemma_launcher.processes.supervisor import Service, first_completed, outlive, set_when_done, supervise
from gemma_launcher.settings import LauncherSettings

POLL_S = 0.1
STOP_MARGIN_S = 4.0
"""Processes are killed this long after the time for open responses (API_SHUTDOWN_SECONDS) is over."""


def run(settings: LauncherSettings, _: Namespace) -> int:
    """Serves until a signal comes; returns the exit code.

    Raises:
        CommandError: a preflight check failed, or a required service never became ready.
    """
    started = time.monotonic()
    console = Console(colour=wants_colour(1))
    try:
        settings = preflight.without_missing_playground(settings, console.log)
        settings = preflight.assign_free_ports(settings)
        with RunScope() as scope:
            exit_now = _make_exit(scope, console)
            for number in _stop_signals():
                signal.signal(number, lambda *_: exit_now())
            embedded = preflight.run_preflight_checks(settings, scope, console)
            asyncio.run(_serve(settings, scope, console, embedded, started))
    finally:
        console.close()
    return 0


async def _serve(
    settings: LauncherSettings,
    scope: RunScope,
    console: Console,
    embedded: EmbeddedTriton | None,
    started: float,
) -> None:
    """Runs the services until a signal comes or a required one cannot be started."""
    async with AsyncExitStack() as stack:
        probe = await stack.enter_async_context(HealthProbe(api_url(settings), timeout_s=8.0))
        gateway, others, runs = _gateway(settings, scope, probe, embedded), [], []
        if embedded is not None:
            http = HealthProbe(embedded.address.http_url, socket=embedded.address.http_socket)
            others.append(_triton(settings, scope, embedded, await stack.enter_async_context(http)))
            runs.append(supervise(others[-1], console))
        if settings.gemma_playground:
            page = await stack.enter_async_context(HealthProbe(playground_url(settings)))
            others.append(_playground(settings, scope, page, console))
            runs.append(_supervise_after(gateway, others[-1], console))
        console.log(f"starting {' and '.join(service.name for service in (gateway, *others))}")
        note = embedded.checkpoint.note if embedded else ""
        for line in note.splitlines():
            console.log(line)
        gateway_done = asyncio.Event()
        await first_completed(
            _wait_for_signal(settings, scope, console),
            _keep_cleanup_process(scope),
            StartupReporter(settings, console, probe, (gateway, *others), note).run(started),
            set_when_done(supervise(gateway, console), gateway_done),
            # Stopped after the gateway: its open responses come from Triton and may go to the playground.
            *(outlive(run, gateway_done) for run in runs),
        )


async def _supervise_after(first: Service, service: Service, console: Console) -> None:
    """Starts a service only when another one is ready, so that their imports do not compete for the CPU.

    With two cores, one core is left to Triton, which takes longest.
    """
    while first.ready_since is None:  # noqa: ASYNC110 - the supervisor polls it as well
        await asyncio.sleep(POLL_S)
    await supervise(service, console)


def _triton(
    settings: LauncherSettings, scope: RunScope, embedded: EmbeddedTriton, probe: HealthProbe
) -> Service:
    wheel, address = embedded.wheel, embedded.address
    command = triton_server.server_command(
        settings, address, wheel, embedded.repository, scope.folder, scope.name
    )
    environment = services.triton_environment(
        scope.tag_environment(os.environ), wheel, scope.folder, settings, embedded.checkpoint
    )

    def on_exit() -> None:
        scope.remove_shared_memory()
        address.unlink_sockets()

    return services.triton_service(command, environment, probe, settings, on_exit)


def _gateway(
    settings: LauncherSettings, scope: RunScope, probe: HealthProbe, embedded: EmbeddedTriton | None
) -> Service:
    address = embedded.address if embedded else None
    environment = services.gateway_environment(scope.tag_environment(os.environ), settings, address)
    return services.gateway_service(environment, probe, settings)


def _playground(settings: LauncherSettings, scope: RunScope, probe: HealthProbe, console: Console) -> Service:
    base = services.with_api_key(scope.tag_environment(os.environ), settings)
    if warning := services.api_key_warning(base, settings):
        console.log(warning, "warning")
    environment = services.playground_environment(base, settings, f"{api_url(settings)}/v1")
    return services.playground_service(environment, probe)


async def _wait_for_signal(settings: LauncherSettings, scope: RunScope, console: Console) -> None:
    """Returns at the first signal. A second signal, or a timeout, kills everything at once."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    exit_now = _make_exit(scope, console)

    def stop() -> None:
        if stopped.is_set():
            exit_now()
        stopped.set()
        loop.call_later(settings.api_shutdown_seconds + STOP_MARGIN_S, exit_now)

    for number in _stop_signals():
        loop.add_signal_handler(number, stop)
    await stopped.wait()
    console.log("stopping; send the signal again to stop at once")


async def _keep_cleanup_process(scope: RunScope) -> None:
    """Restarts the cleanup process if it was killed."""
    while True:
        await asyncio.sleep(1.0)
        scope.ensure_cleanup_process()


def _make_exit(scope: RunScope, console: Console) -> Callable[[], None]:
    def exit_now() -> None:
        """Kills all processes of the run and exits, from whatever state."""
        scope.close()
        console.close()
        os._exit(0)

    return exit_now


def _stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop the launcher; SIGHUP is not among them if it is ignored (nohup)."""
    hang_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return signal.SIGINT, signal.SIGTERM, *hang_up
