"""Conversations with the real stack. Its weights are random, so no test checks the text of a response."""

import re
from pathlib import Path

from playwright.async_api import expect

from materials import LONG, broken, square, story_settings, written
from playgrounds import Playground
from screen import Screen, Visit
from stack import Stack

SHORT = story_settings(12)
PERCENT = re.compile(r"\d%")
RELEASE_S = 1 + 1  # a slot is free within a second; another one for the browser to notify the server


async def _start_long_response(screen: Screen, stack: Stack) -> None:
    """Start a long response."""
    await screen.send_message("Tell me a story")
    await expect(screen.responses.last).not_to_be_empty()
    assert stack.gauge("gemma_requests_running") == 1


async def test_three_clicks_from_the_first_screen_to_a_response_about_an_image(
    visit: Visit, real: Playground, tiny: Stack, tmp_path: Path
) -> None:
    screen = await visit(real, "?max_tokens=64")  # random weights may go on until the context is full
    await screen.choose(
        "Upload a file", square(tmp_path)
    )  # the first click, and the second one in the dialog
    await screen.send.click()  # the third click
    await screen.expect_image(50)
    await screen.wait_complete()
    await expect(screen.metric("completion tokens")).not_to_have_text("–")
    assert tiny.idle(RELEASE_S)


async def test_a_response_grows_until_stop_frees_its_slot(
    visit: Visit, real: Playground, tiny: Stack
) -> None:
    screen = await visit(real, f"{LONG}&logprobs=true")
    await _start_long_response(screen, tiny)
    received = [0]
    while len(received) < 4:
        await expect(screen.button("Stop")).to_be_visible()
        received.append(await screen.received_beyond(received[-1]))
    assert tiny.gauge("gemma_requests_running") == 1, "it is still running"
    await screen.button("Stop").click()
    assert tiny.idle(RELEASE_S)
    await screen.wait_complete()
    assert await screen.page.locator("#tokens span").count() >= received[-1], "the text so far is kept"
    await expect(screen.responses.last).not_to_be_empty()

    await screen.open(SHORT)
    await screen.send_message("And then?")
    await expect(screen.metric("completion tokens")).to_have_text("12")


async def test_a_closed_tab_frees_its_slot(visit: Visit, real: Playground, tiny: Stack) -> None:
    screen = await visit(real, LONG)
    await _start_long_response(screen, tiny)
    await screen.page.reload()
    assert tiny.idle(RELEASE_S), "a reload frees it too"
    await screen.open(LONG)
    await _start_long_response(screen, tiny)
    await screen.page.close()
    assert tiny.idle(RELEASE_S)


async def test_the_page_works_by_keyboard_and_shows_the_metrics(visit: Visit, real: Playground) -> None:
    screen = await visit(real, f"{SHORT}&logprobs=true")
    for _ in range(60):
        await screen.page.keyboard.press("Tab")
        if await screen.box.evaluate("it => it === document.activeElement"):
            break
    await screen.page.keyboard.type("Hello")
    await screen.page.keyboard.press("Enter")
    await expect(screen.user_messages).to_have_text("Hello")
    await screen.wait_complete()
    await expect(screen.metric("completion tokens")).to_have_text("12")
    await expect(screen.metric("finish reason")).to_have_text("length")
    await expect(screen.metric("TTFT")).to_contain_text("ms")
    for name in ("prompt tokens", "cached tokens", "tokens/s"):
        await expect(screen.metric(name)).not_to_have_text("–")
    tokens = screen.page.locator("#tokens span")
    await expect(tokens).to_have_count(12)
    await expect(tokens.first).to_have_attribute("title", PERCENT)
    await screen.part("Request").click()
    for language in ("curl", "Python", "JavaScript"):
        code = screen.page.get_by_role("textbox", name=f"The request with {language}").filter(visible=True)
        await expect(code).to_have_value(re.compile("Hello"))


async def test_an_error_of_the_server_is_shown_in_its_own_words(
    visit: Visit, real: Playground, tmp_path: Path
) -> None:
    screen = await visit(real, "?temperature=9&max_tokens=8")
    await screen.send_message("Hello")
    await expect(screen.chat).to_contain_text("Error")
    await expect(screen.chat).to_contain_text("temperature")
    await screen.wait_complete()
    await screen.set("Temperature", "1")
    await screen.button("Retry").last.click()
    await expect(screen.chat).not_to_contain_text("temperature")
    await screen.wait_complete()
    for image in (broken(tmp_path), written(tmp_path, "lie.png", "<html>no image</html>")):
        await screen.button("New chat").click()
        await expect(screen.user_messages).to_have_count(0)
        await screen.send_message("What is this?", image)
        await expect(screen.chat).to_contain_text("Error")
        await expect(screen.chat).to_contain_text("image")


async def test_side_by_side_sends_both_requests_at_once(visit: Visit, real: Playground, tiny: Stack) -> None:
    screen = await visit(real)
    await screen.tab("Side by side")
    for number, side in enumerate(("Left", "Right")):
        await screen.part(f"{side}: settings").click()
        for label, value in {"Temperature": "0", "Max tokens": "4000"}.items():
            await screen.page.get_by_label(label, exact=True).filter(visible=True).nth(number).fill(value)
    await screen.send_message("Tell me a story")
    for side in ("#left", "#right"):
        await expect(screen.page.locator(f"{side} .message.bot")).not_to_be_empty()
    assert tiny.gauge("gemma_requests_running") == 2
    await screen.button("Stop").click()
    assert tiny.idle(RELEASE_S)
