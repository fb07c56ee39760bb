"""Profiles of the browser, which is what one visitor has: storage, cookies, a screen of some size."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page

PATIENCE_MS = 60_000  # how long a busy machine may take for what should be there at once
CLOSING_S = 20


async def new_profile(browser: Browser, **settings: Any) -> BrowserContext:
    """Of a visitor who has never been anywhere."""
    profile = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    profile.set_default_timeout(PATIENCE_MS)
    return profile


class Profiles:
    """Lends each profile to one visitor after another, who find nothing of each other but a warm cache.

    Gradio's page is hundreds of modules: to load and compile them anew takes longer than most tests.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._free: defaultdict[str, list[BrowserContext]] = defaultdict(list)

    @contextlib.asynccontextmanager
    async def lent(self, url: str, **settings: Any) -> AsyncIterator[Page]:
        """A tab in a profile of these settings, where nobody has ever been at this address."""
        free = self._free[repr(sorted(settings.items()))]
        profile = free.pop() if free else await new_profile(self._browser, **settings)
        page = await profile.new_page()
        await _forget(page, url)
        yield page
        if await _left(profile):
            free.append(profile)


async def _left(profile: BrowserContext) -> bool:
    """Close all tabs; whether they have closed: one that is left while it loads a page may never say so."""
    try:
        async with asyncio.timeout(CLOSING_S):
            for each in profile.pages:
                await each.close()
    except TimeoutError:
        print(f"a tab has not closed within {CLOSING_S} s; nobody else gets its profile")
        return False
    return True


async def _forget(page: Page, url: str) -> None:
    """Wipe what the site has stored, cookies too; the cache is the browser's, and stays."""
    session = await page.context.new_cdp_session(page)
    await session.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
    await session.detach()
