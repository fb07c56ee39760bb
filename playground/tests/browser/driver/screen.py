"""The page as a visitor finds the way on it: by what ``playground/README.md`` lists."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, Locator, Page, Request, expect

from profiles import PATIENCE_MS, new_profile

expect.set_options(timeout=PATIENCE_MS)


class Screen:
    """One tab. ``foreign`` and ``errors`` should stay empty: requests to other hosts, errors of the scripts.

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
        """Where a message is written."""
        return self.page.get_by_role("textbox", name="Message", exact=True).filter(visible=True)

    @property
    def chat(self) -> Locator:
        return self.page.locator("#chat")

    @property
    def questions(self) -> Locator:
        return self.chat.locator(".message.user")

    @property
    def answers(self) -> Locator:
        return self.chat.locator(".message.bot")

    @property
    def notice(self) -> Locator:
        """What the page says for some seconds in its corner."""
        return self.page.get_by_test_id("toast-body")

    @property
    def send(self) -> Locator:
        return self.button("Submit")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True).filter(visible=True)

    def part(self, name: str) -> Locator:
        """What opens and closes a part of the page; an arrow belongs to its name."""
        return self.page.get_by_role("button", name=re.compile(f"^{name}")).filter(visible=True)

    def setting(self, label: str) -> Locator:
        """Of the chat."""
        return self.page.locator("#settings").get_by_label(label, exact=True)

    def conversation(self, title: str) -> Locator:
        """In the list at the side."""
        return self.page.get_by_role("radio", name=title)

    def fact(self, name: str, within: str = "#facts") -> Locator:
        """A value beside its name."""
        return self.page.locator(f"{within} div:has(> dt:text-is('{name}')) > dd")

    async def come(self, query: str = "") -> None:
        """Go to the page, or come back to it, and wait until it can be used."""
        await self.page.goto(f"{self.url}/{query}")
        await self._usable()

    async def reload(self) -> None:
        await self.page.reload()
        await self._usable()

    async def _usable(self) -> None:
        """The server was looked at, which is the last that a fresh page does."""
        await self.page.wait_for_function("document.querySelector('#heading :is(.ready, .down)')")
        await expect(self.box).to_be_editable()

    async def attach(self, *files: Path) -> None:
        """As the dialogue behind the button does."""
        await self.page.locator("#message input[type=file]").set_input_files(list(files))

    async def say(self, text: str, *files: Path) -> None:
        """Write it, and send it as soon as the files are uploaded."""
        if files:
            await self.attach(*files)
            await expect(self.page.locator("#message .thumbnail-item")).to_have_count(len(files))
        await self.box.fill(text)
        await self.box.press("Enter")

    async def set(self, label: str, value: str) -> None:
        """Write a setting; the part that holds it is opened if it is closed."""
        field = self.setting(label)
        if not await field.is_visible():
            await self.part("Format and tools").click()
        await field.fill(value)
        await field.press("Tab")

    async def tab(self, name: str) -> None:
        await self.page.get_by_role("tab", name=name, exact=True).click()

    async def wait_answered(self) -> None:
        """Until the answer is whole: there is nothing to stop any more."""
        await expect(self.answers.last).to_be_visible()
        await expect(self.button("Stop")).to_have_count(0)

    async def wait_stored(self, text: str) -> None:
        """Until the browser keeps it: that comes after the answer's end."""
        stored = 'text => localStorage["gemma-playground"]?.includes(text)'
        await self.page.wait_for_function(stored, arg=text)

    async def received_beyond(self, tokens: int) -> int:
        """The number of tokens of the last answer, as soon as more than these have come.

        The answer must be asked with log probabilities. Its length on the page is no measure: what is
        Markdown in it may become shorter when more comes.
        """
        more = await self.page.wait_for_function(
            """tokens => {
                const received = document.querySelectorAll("#tokens span").length;
                return received > tokens && received;
            }""",
            arg=tokens,
        )
        return int(await more.json_value())

    async def expect_picture(self, side: int) -> None:
        """A question shows one, and it is this many pixels wide."""
        shown = self.questions.locator("img").first
        await expect(shown).to_be_visible()
        assert await shown.evaluate("async (it) => (await it.decode(), it.naturalWidth)") == side

    async def choose(self, button: str, path: Path) -> None:
        """A file, in the dialogue behind a button."""
        async with self.page.expect_file_chooser() as dialogue:
            await self.button(button).click()
        await (await dialogue.value).set_files(path)

    async def download(self, button: str, path: Path) -> str:
        """What a button saves: as a file, and as text."""
        async with self.page.expect_download() as download:
            await self.button(button).click()
        await (await download.value).save_as(path)
        return path.read_text(encoding="utf-8")  # noqa: ASYNC240 it is small

    async def picture(self, path: Path) -> None:
        """A screenshot."""
        path.parent.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=path)


async def new_screen(browser: Browser, url: str, **settings: Any) -> Screen:
    """A tab in a new profile, which the caller closes; it has gone nowhere yet."""
    profile = await new_profile(browser, **settings)
    return Screen(await profile.new_page(), url)


Visit = Callable[..., Awaitable[Screen]]
"""The fixture that opens a playground, with a query and what a browser's profile takes."""
