"""Profiles of the browser: storage, cookies and screen size of one user."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page

PATIENCE_MS = 60_000  # for a busy machine
CLOSING_S = 20


async def new_profile(browser: Browser, **settings: Any) -> BrowserContext:
    """A new, empty profile."""
    profile = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    profile.set_default_timeout(PATIENCE_MS)
    return profile


class Profiles:
    """Reuses profiles, with empty storage but with a warm cache.

    Gradio's page has hundreds of modules; loading and compiling them takes longer than most tests.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._free: defaultdict[str, list[BrowserContext]] = defaultdict(list)

    @contextlib.asynccontextmanager
    async def borrow(self, url: str, **settings: Any) -> AsyncIterator[Page]:
        """A tab in a profile with these settings and without stored data of this address."""
        free = self._free[repr(sorted(settings.items()))]
        profile = free.pop() if free else await new_profile(self._browser, **settings)
        page = await profile.new_page()
        await _clear_storage(page, url)
        yield page
        if await _close_tabs(profile):
            free.append(profile)


async def _close_tabs(profile: BrowserContext) -> bool:
    """Close all tabs; whether they have closed: a tab that is loading a page may not confirm it."""
    try:
        async with asyncio.timeout(CLOSING_S):
            for each in profile.pages:
                await each.close()
    except TimeoutError:
        print(f"a tab was not closed within {CLOSING_S} s; its profile is not used again")
        return False
    return True


async def _clear_storage(page: Page, url: str) -> None:
    """Delete what the site has stored, including cookies; the browser's cache remains."""
    session = await page.context.new_cdp_session(page)
    await session.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
    await session.detach()
