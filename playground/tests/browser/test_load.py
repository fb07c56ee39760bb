"""Many visitors at once."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from fake_openai import FakeOpenAI, Part, Request
from playgrounds import Playground
from screen import Visit

TABS = 20


@pytest.mark.long
async def test_twenty_tabs_stream_at_once(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    """Visitors, that is: one browser opens no more than six connections to a host, whatever its tabs want."""
    everybody = threading.Barrier(TABS)

    def together(request: Request) -> Iterator[Part]:
        yield "begun "
        everybody.wait(300)
        yield "whole"

    fake.script = together
    screens = [await visit(scripted) for _ in range(TABS)]
    await asyncio.gather(*(screen.send_message("Hello") for screen in screens))
    for screen in screens:
        await expect(screen.responses).to_have_text("begun whole", timeout=120_000)
