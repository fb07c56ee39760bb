"""Reports the progress of the start, prints the banner, and reports when the API becomes unavailable."""

import asyncio
import time
from collections.abc import Sequence

from gemma_launcher.console import Console
from gemma_launcher.processes.health_probe import HealthProbe
from gemma_launcher.processes.startup_banner import banner
from gemma_launcher.processes.supervisor import Service, wait_until_unresponsive
from gemma_launcher.settings import LauncherSettings

REPORT_INTERVAL_S = 5.0
POLL_S = 0.25


class StartupReporter:
    """Polls the readiness of the gateway.

    Args:
        settings: for the banner.
        console: where to report.
        gateway: the gateway's probe.
        services: the required ones must be ready before the API is.
        note: what users should know about the checkpoint; may be empty.
    """

    def __init__(
        self,
        settings: LauncherSettings,
        console: Console,
        gateway: HealthProbe,
        services: Sequence[Service],
        note: str = "",
    ) -> None:
        self._settings = settings
        self._console = console
        self._gateway = gateway
        self._required = [service for service in services if service.required]
        self._optional = [service for service in services if not service.required]
        self._note = note

    async def run(self, started: float) -> None:
        """Runs until it is cancelled.

        Args:
            started: when the launcher was started, ``time.monotonic()``.
        """
        await self._wait_until_ready(started)
        health = await self._gateway.json("/health")
        seconds = time.monotonic() - started
        optional_ready = all(service.ready_since for service in self._optional)
        self._console.write_block(banner(self._settings, health, seconds, self._note, optional_ready))
        while True:
            await wait_until_unresponsive(self._is_ready, "", failures=2)
            lost = time.monotonic()
            self._console.log("the API is not ready; requests get status 503 meanwhile", "warning")
            await self._wait_until_ready(lost)
            self._console.log(f"the API is ready again, after {time.monotonic() - lost:.0f} s")

    async def _is_ready(self) -> bool:
        """Does not ask the gateway in vain, which logs every failed attempt to reach the model."""
        services_ready = all(service.ready_since for service in self._required)
        return services_ready and await self._gateway.is_ok("/health/ready")

    async def _wait_until_ready(self, since: float) -> None:
        reported = time.monotonic()
        while not await self._is_ready():
            await asyncio.sleep(POLL_S)
            if time.monotonic() - reported >= REPORT_INTERVAL_S:
                reported = time.monotonic()
                self._console.log(f"{reported - since:.0f} s: waiting for {self._pending()}")

    def _pending(self) -> str:
        pending = [service.startup_task for service in self._required if service.ready_since is None]
        if pending:
            return " and ".join(pending)
        address = "" if self._settings.embedded else f" at {self._settings.triton_grpc_url}"
        return f"the gateway to reach the model{address}"
