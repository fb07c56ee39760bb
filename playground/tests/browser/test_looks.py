"""Phones, dark mode and accessibility."""

import re
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from fake_openai import FakeOpenAI
from playgrounds import Playground
from screen import Screen, Visit

PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}
ANSWER = """# A title

Some *words*, `code` and a [link](#a).

```python
print("hello")
```

| a | b |
| - | - |
| 1 | 2 |
"""
WIDE = "\n".join(("w" * 300, "```", "c" * 300, "```", "| wide " * 40, "| - " * 40, "| 1 " * 40))


async def _findings(screen: Screen) -> list[str]:
    """The serious or critical findings of axe."""
    found = (await Axe().run(screen.page)).response["violations"]
    return [
        f"{each['impact']} {each['id']}: {each['help']}\n"
        + "\n".join(node["html"] + node.get("failureSummary", "") for node in each["nodes"])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("profile", [{}, {"color_scheme": "dark"}], ids=["light", "dark"])
async def test_axe_finds_nothing_serious(
    visit: Visit, scripted: Playground, fake: FakeOpenAI, profile: dict[str, Any]
) -> None:
    fake.script = lambda request: [ANSWER]
    screen = await visit(scripted, **profile)
    assert (await _brightness(screen) < 80) == bool(profile), "as the system has it"
    found = {"first screen": await _findings(screen)}
    await screen.send_message("Hello")
    await screen.wait_complete()
    for part in ("Request", "Format and tools"):
        await screen.part(part).click()
    found["answer"] = [*await _findings(screen), *await _nameless(screen)]
    for tab in ("Side by side", "Status"):
        await screen.tab(tab)
        await expect(screen.page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
        found[tab] = await _findings(screen)
    assert not any(found.values()), "\n".join(
        f"{at}: {text}" for at, texts in found.items() for text in texts
    )


async def test_a_phone_needs_no_horizontal_scrolling(
    visit: Visit, scripted: Playground, fake: FakeOpenAI
) -> None:
    fake.script = lambda request: [WIDE]
    screen = await visit(scripted, **PHONE)
    assert await _overhang(screen) == 0
    await screen.send_message("A wide answer")
    await screen.wait_complete()
    assert await _overhang(screen) == 0
    await expect(screen.box).to_be_in_viewport()
    for tab in ("Side by side", "Status"):
        await screen.tab(tab)
        assert await _overhang(screen) == 0


async def _nameless(screen: Screen) -> list[str]:
    """Buttons without an accessible name; axe does not detect an empty label next to an icon."""
    buttons = screen.page.get_by_role("button", name=re.compile("^$")).filter(visible=True)
    return [str(each) for each in await buttons.evaluate_all("all => all.map(one => one.outerHTML)")]


async def _brightness(screen: Screen) -> float:
    """The brightness of the page's background, up to 255."""
    colour = await screen.page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    red, green, blue = (float(part) for part in re.findall(r"[\d.]+", colour)[:3])
    return (red + green + blue) / 3


async def _overhang(screen: Screen) -> int:
    """CSS pixels by which the page is wider than the screen."""
    width = await screen.page.evaluate("document.scrollingElement.scrollWidth")
    return int(width) - int(PHONE["viewport"]["width"])


async def test_a_browser_caches_the_assets_of_the_page(visit: Visit, scripted: Playground) -> None:
    screen = await visit(scripted)
    addresses = "performance.getEntriesByType('resource').map(each => each.name)"
    modules = [each for each in await screen.page.evaluate(addresses) if "/assets/" in each]
    assert len(modules) > 20
    for module in modules[:5]:
        answer = await screen.page.request.get(module)
        assert "immutable" in answer.headers["cache-control"]
    answer = await screen.page.request.get(f"{scripted.url}/assets/nothing.js")
    assert answer.status == 404
