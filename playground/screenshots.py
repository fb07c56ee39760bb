"""Takes the README's pictures of the playground anew: ``make screenshots``.

The real stack with the bundled demo model, and the browser of the tests.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Browser, expect

import chromium
from materials import red_circle
from playgrounds import Playground
from screen import Screen, new_screen
from stack import ROOT, running

IMAGES = ROOT / "docs" / "images"
DEMO = ROOT / "models" / "gemma3n-nano"
WIDE = {"width": 1280, "height": 800}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}
QUESTION = "What do you see in this image?"


async def talk(screen: Screen, picture: Path) -> None:
    """A picture, and what the model sees in it."""
    await screen.say(QUESTION, picture)
    await screen.wait_answered()


async def keep(screen: Screen, name: str) -> None:
    """The page as it is now."""
    path = IMAGES / f"{name}.png"
    await screen.page.mouse.move(0, 0)  # off whatever it would highlight
    await screen.page.wait_for_timeout(1000)  # for fades and pictures
    await screen.picture(path)
    print(path.relative_to(ROOT))


async def take(browser: Browser, url: str, picture: Path) -> None:
    """All of them."""
    for scheme in ("light", "dark"):
        screen = await new_screen(browser, url, viewport=WIDE, color_scheme=scheme)
        await screen.come()
        if scheme == "light":
            await keep(screen, "playground-first")
        await talk(screen, picture)
        await keep(screen, f"playground-{scheme}")
        if scheme == "light":
            await _tabs(screen)
        await screen.page.context.close()
    screen = await new_screen(browser, url, **PHONE)
    await screen.come()
    await talk(screen, picture)
    await keep(screen, "playground-phone")
    await screen.page.context.close()


async def _tabs(screen: Screen) -> None:
    await screen.tab("Side by side")
    await screen.box.fill("Tell me a story")
    await screen.box.press("Enter")
    for side in ("#left", "#right"):
        await expect(screen.page.locator(f"{side} .message.bot")).to_be_visible()
    await expect(screen.button("Stop")).to_have_count(0)
    await keep(screen, "playground-side-by-side")
    await screen.tab("Status")
    await expect(screen.fact("health", "#health")).to_contain_text("ready")
    await keep(screen, "playground-status")


async def main() -> None:
    """Start all, take them, end all."""
    path = chromium.installed() or sys.exit(chromium.MISSING)
    if not DEMO.is_dir():
        sys.exit(f"{DEMO} is missing: with random weights the pictures would show gibberish")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running(log, playground=True, MODEL_NAME="") as stack:
            Playground(stack.playground_url, log).wait_ready()
            async with chromium.launched(path) as browser:
                await take(browser, stack.playground_url, red_circle(Path(folder)))


if __name__ == "__main__":
    asyncio.run(main())
