"""Tells how the start goes, prints the banner, and tells when the API is lost and found."""

import asyncio
import time
from collections.abc import Sequence

from gemma_launcher.banner import banner
from gemma_launcher.console import Console
from gemma_launcher.probe import Probe
from gemma_launcher.settings import Settings
from gemma_launcher.supervisor import Service, silent

REPORT_EVERY_S = 5.0
POLL_S = 0.25
READY = "/health/ready"


class Announcer:
    """Follows the gateway's readiness from its first moment on.

    Args:
        gateway: asks the gateway.
        services: what the start waits for.
        random: the weights are random.
    """

    def __init__(
        self, settings: Settings, console: Console, gateway: Probe, services: Sequence[Service], random: bool
    ) -> None:
        self._settings = settings
        self._console = console
        self._gateway = gateway
        self._services = services
        self._random = random

    async def run(self, started: float) -> None:
        """Runs until it is cancelled.

        Args:
            started: when the launcher was started, monotonic seconds.
        """
        await self._until_ready(started)
        health = await self._gateway.json("/health")
        self._console.block(banner(self._settings, health, time.monotonic() - started, self._random))
        while True:
            await silent(self._is_ready, "", failures=2)
            lost = time.monotonic()
            self._console.say("the API is not ready; requests are answered 503 for now", "warning")
            await self._until_ready(lost)
            self._console.say(f"the API is ready again, after {time.monotonic() - lost:.0f} s")

    async def _is_ready(self) -> bool:
        """Asks only when there is hope: the gateway logs each time that it could not reach the model."""
        return all(service.up_since for service in self._services) and await self._gateway.is_ok(READY)

    async def _until_ready(self, since: float) -> None:
        reported = time.monotonic()
        while not await self._is_ready():
            await asyncio.sleep(POLL_S)
            if time.monotonic() - reported >= REPORT_EVERY_S:
                reported = time.monotonic()
                self._console.say(f"{reported - since:.0f} s: waiting for {self._missing()}")

    def _missing(self) -> str:
        missing = [service.awaited for service in self._services if service.up_since is None]
        if missing:
            return " and ".join(missing)
        return "the gateway to reach the model" + (
            "" if self._settings.embedded else f" at {self._settings.triton_grpc_url}"
        )
