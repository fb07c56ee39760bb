"""A driver of the page; it finds elements as listed in ``playground/README.md``."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, Locator, Page, Request, expect

from profiles import PATIENCE_MS, new_profile

expect.set_options(timeout=PATIENCE_MS)


class Screen:
    """One tab. ``foreign`` (requests to other hosts) and ``errors`` (of scripts) should stay empty.

    Args:
        page: of the browser.
        url: of the playground.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.foreign: list[str] = []
        self.errors: list[str] = []
        page.on("requestfinished", self._note)
        page.on("requestfailed", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note(self, request: Request) -> None:
        host, kept_in = urlsplit(request.url).netloc, "csp" in (request.failure or "").lower()
        if host and host != urlsplit(self.url).netloc and not kept_in:
            self.foreign.append(request.url)

    @property
    def box(self) -> Locator:
        """The text box for a message."""
        return self.page.get_by_role("textbox", name="Message", exact=True).filter(visible=True)

    @property
    def chat(self) -> Locator:
        return self.page.locator("#chat")

    @property
    def user_messages(self) -> Locator:
        return self.chat.locator(".message.user")

    @property
    def responses(self) -> Locator:
        return self.chat.locator(".message.bot")

    @property
    def toast(self) -> Locator:
        """A notification, which is shown for some seconds."""
        return self.page.get_by_test_id("toast-body")

    @property
    def send(self) -> Locator:
        return self.button("Submit")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True).filter(visible=True)

    def part(self, name: str) -> Locator:
        """The header of an accordion; its name contains an arrow."""
        return self.page.get_by_role("button", name=re.compile(f"^{name}")).filter(visible=True)

    def setting(self, label: str) -> Locator:
        """A setting of the chat."""
        return self.page.locator("#settings").get_by_label(label, exact=True)

    def conversation(self, title: str) -> Locator:
        """An entry of the list of conversations."""
        return self.page.get_by_role("radio", name=title)

    def metric(self, name: str, within: str = "#facts") -> Locator:
        """The value of a metric."""
        return self.page.locator(f"{within} div:has(> dt:text-is('{name}')) > dd")

    async def open(self, query: str = "") -> None:
        """Open the page, and wait until it can be used."""
        await self.page.goto(f"{self.url}/{query}")
        await self._usable()

    async def reload(self) -> None:
        await self.page.reload()
        await self._usable()

    async def _usable(self) -> None:
        """Wait for the status of the server, which is the last thing that a new page requests."""
        await self.page.wait_for_function("document.querySelector('#heading :is(.ready, .down)')")
        await expect(self.box).to_be_editable()

    async def attach(self, *files: Path) -> None:
        """Add files, as the dialog of the button does."""
        await self.page.locator("#message input[type=file]").set_input_files(list(files))

    async def send_message(self, text: str, *files: Path) -> None:
        """Write a message, and send it as soon as its files are uploaded."""
        if files:
            await self.attach(*files)
            await expect(self.page.locator("#message .thumbnail-item")).to_have_count(len(files))
        await self.box.fill(text)
        await self.box.press("Enter")

    async def set(self, label: str, value: str) -> None:
        """Change a setting; its accordion is opened if it is closed."""
        field = self.setting(label)
        if not await field.is_visible():
            await self.part("Format and tools").click()
        await field.fill(value)
        await field.press("Tab")

    async def tab(self, name: str) -> None:
        await self.page.get_by_role("tab", name=name, exact=True).click()

    async def wait_complete(self) -> None:
        """Wait until the response is complete: there is nothing to stop any more."""
        await expect(self.responses.last).to_be_visible()
        await expect(self.button("Stop")).to_have_count(0)

    async def wait_stored(self, text: str) -> None:
        """Wait until the browser has stored a text, which is after the end of a response."""
        stored = 'text => localStorage["gemma-playground"]?.includes(text)'
        await self.page.wait_for_function(stored, arg=text)

    async def received_beyond(self, tokens: int) -> int:
        """Wait for more than ``tokens`` tokens of the last response; returns their number.

        The request must have log probabilities. The length of the text on the page is not used, because
        Markdown in it may become shorter when more is received.
        """
        more = await self.page.wait_for_function(
            """tokens => {
                const received = document.querySelectorAll("#tokens span").length;
                return received > tokens && received;
            }""",
            arg=tokens,
        )
        return int(await more.json_value())

    async def expect_image(self, side: int) -> None:
        """The first user message shows an image of this width in pixels."""
        shown = self.user_messages.locator("img").first
        await expect(shown).to_be_visible()
        assert await shown.evaluate("async (it) => (await it.decode(), it.naturalWidth)") == side

    async def choose(self, button: str, path: Path) -> None:
        """Choose a file in the dialog of a button."""
        async with self.page.expect_file_chooser() as dialog:
            await self.button(button).click()
        await (await dialog.value).set_files(path)

    async def download(self, button: str, path: Path) -> str:
        """Save the file that a button downloads; returns its text."""
        async with self.page.expect_download() as download:
            await self.button(button).click()
        await (await download.value).save_as(path)
        return path.read_text(encoding="utf-8")  # noqa: ASYNC240 it is small

    async def screenshot(self, path: Path) -> None:
        """A screenshot."""
        path.parent.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=path)


async def new_screen(browser: Browser, url: str, **settings: Any) -> Screen:
    """A tab in a new profile, which the caller closes; no page is open yet."""
    profile = await new_profile(browser, **settings)
    return Screen(await profile.new_page(), url)


Visit = Callable[..., Awaitable[Screen]]
"""The fixture that opens a playground, with a query and settings of the browser's profile."""
