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
        services: of these the start waits for the vital ones.
        note: what people must know about the checkpoint; empty: nothing.
    """

    def __init__(
        self,
        settings: Settings,
        console: Console,
        gateway: Probe,
        services: Sequence[Service],
        note: str = "",
    ) -> None:
        self._settings = settings
        self._console = console
        self._gateway = gateway
        self._services = [service for service in services if service.vital]
        self._extras = [service for service in services if not service.vital]
        self._note = note

    async def run(self, started: float) -> None:
        """Runs until it is cancelled.

        Args:
            started: when the launcher was started, monotonic seconds.
        """
        await self._until_ready(started)
        await self._show_banner(started)
        while True:
            await silent(self._is_ready, "", failures=2)
            lost = time.monotonic()
            self._console.say("the API is not ready; requests are answered 503 for now", "warning")
            await self._until_ready(lost)
            self._console.say(f"the API is ready again, after {time.monotonic() - lost:.0f} s")

    async def _show_banner(self, started: float) -> None:
        health = await self._gateway.json("/health")
        seconds = time.monotonic() - started
        all_up = all(service.up_since for service in self._extras)
        self._console.block(banner(self._settings, health, seconds, self._note, playground_is_up=all_up))

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
