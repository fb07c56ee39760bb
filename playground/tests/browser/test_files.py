"""Files in a message: which are accepted, and how others are refused."""

from pathlib import Path

from playwright.async_api import expect

from fake_openai import FakeOpenAI
from materials import square, written
from playgrounds import Playground
from screen import Visit


async def test_large_files_and_other_types_are_refused(
    visit: Visit, scripted: Playground, fake: FakeOpenAI, tmp_path: Path
) -> None:
    screen = await visit(scripted)
    await screen.attach(square(tmp_path, "large.bmp", side=2700))
    await expect(screen.toast.first).to_contain_text("20")
    await expect(screen.toast.first).to_contain_text("MB", ignore_case=True)
    for name in ("notes.txt", "page.svg"):
        await screen.attach(written(tmp_path, name, "<svg/>"))
        await expect(screen.toast.filter(has_text=name)).to_be_visible()
    assert not fake.requests


async def test_several_files_in_a_turn(
    visit: Visit, scripted: Playground, fake: FakeOpenAI, tmp_path: Path
) -> None:
    screen = await visit(scripted)
    await screen.send_message("Compare", square(tmp_path, "a.png"), square(tmp_path, "b.png"))
    await screen.wait_complete()
    await expect(screen.user_messages.locator("img")).to_have_count(2)
    kinds = [part["type"] for part in fake.requests[-1]["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "text"]


async def test_an_example_is_sent_with_its_file(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    screen = await visit(scripted)
    await screen.chat.get_by_role("button", name="Listen to this").click()
    await expect(screen.responses.last).to_have_text("You said: What do you hear?")
    await screen.wait_complete()
    assert [part["type"] for part in fake.requests[-1]["messages"][0]["content"]] == ["input_audio", "text"]
