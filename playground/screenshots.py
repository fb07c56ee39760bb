"""Takes the README's screenshots of the playground: ``make screenshots``.

It uses the real stack with the bundled demo model, and the browser of the tests.
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


async def send_image(screen: Screen, image: Path) -> None:
    """Send an image, and wait for the response."""
    await screen.send_message(QUESTION, image)
    await screen.wait_complete()


async def save(screen: Screen, name: str) -> None:
    """Save a screenshot of the page."""
    path = IMAGES / f"{name}.png"
    await screen.page.mouse.move(0, 0)  # so that nothing is highlighted
    await screen.page.wait_for_timeout(1000)  # for transitions and images
    await screen.screenshot(path)
    print(path.relative_to(ROOT))


async def take(browser: Browser, url: str, image: Path) -> None:
    """Take all screenshots."""
    for scheme in ("light", "dark"):
        screen = await new_screen(browser, url, viewport=WIDE, color_scheme=scheme)
        await screen.open()
        if scheme == "light":
            await save(screen, "playground-first")
        await send_image(screen, image)
        await save(screen, f"playground-{scheme}")
        if scheme == "light":
            await _tabs(screen)
        await screen.page.context.close()
    screen = await new_screen(browser, url, **PHONE)
    await screen.open()
    await send_image(screen, image)
    await save(screen, "playground-phone")
    await screen.page.context.close()


async def _tabs(screen: Screen) -> None:
    await screen.tab("Side by side")
    await screen.box.fill("Tell me a story")
    await screen.box.press("Enter")
    for side in ("#left", "#right"):
        await expect(screen.page.locator(f"{side} .message.bot")).to_be_visible()
    await expect(screen.button("Stop")).to_have_count(0)
    await save(screen, "playground-side-by-side")
    await screen.tab("Status")
    await expect(screen.metric("health", "#health")).to_contain_text("ready")
    await save(screen, "playground-status")


async def main() -> None:
    """Start the stack and the browser, take the screenshots, stop them."""
    path = chromium.installed() or sys.exit(chromium.MISSING)
    if not DEMO.is_dir():
        sys.exit(f"{DEMO} is missing: with random weights the screenshots would show gibberish")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running(log, playground=True, MODEL_NAME="") as stack:
            Playground(stack.playground_url, log).wait_ready()
            async with chromium.launched(path) as browser:
                await take(browser, stack.playground_url, red_circle(Path(folder)))


if __name__ == "__main__":
    asyncio.run(main())
