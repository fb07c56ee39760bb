"""What stays: conversations in the browser and in files, settings in addresses."""

import json
from pathlib import Path

from playwright.async_api import expect

from fake_openai import FakeOpenAI
from materials import square, written
from playgrounds import Playground
from screen import Screen, Visit


async def _send_and_wait(screen: Screen, text: str, *files: Path) -> None:
    await screen.send_message(text, *files)
    await expect(screen.responses.last).to_have_text(f"You said: {text}")
    await screen.wait_stored(f"You said: {text}")


async def test_history_survives_a_reload(
    visit: Visit, scripted: Playground, fake: FakeOpenAI, tmp_path: Path
) -> None:
    screen = await visit(scripted)
    await _send_and_wait(screen, "one", square(tmp_path))
    await _send_and_wait(screen, "two")
    await screen.reload()
    await expect(screen.responses).to_have_text(["You said: one", "You said: two"])
    await screen.expect_image(50)
    await _send_and_wait(screen, "three")
    messages = fake.requests[-1]["messages"]
    assert len(messages) == 5
    assert [part["type"] for part in messages[0]["content"]] == ["image_url", "text"], (
        "it still sees the picture"
    )


async def test_several_conversations(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    screen = await visit(scripted)
    await _send_and_wait(screen, "apples")
    await screen.button("New chat").click()
    await expect(screen.user_messages).to_have_count(0)
    await _send_and_wait(screen, "pears")
    assert len(fake.requests[-1]["messages"]) == 1, "it knows nothing of the other"
    await expect(screen.conversation("pears")).to_be_checked()
    await screen.conversation("apples").click()
    await expect(screen.responses).to_have_text(["You said: apples"])
    await screen.reload()
    await expect(screen.responses).to_have_text(["You said: apples"])
    await screen.button("Clear").click()
    await expect(screen.user_messages).to_have_count(0)
    await expect(screen.conversation("apples")).to_have_count(0)
    await screen.conversation("pears").click()
    await expect(screen.responses).to_have_text(["You said: pears"])


async def test_retry_undo_and_edit(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    screen = await visit(scripted)
    await _send_and_wait(screen, "one")
    fake.script = lambda request: ["Another answer"]
    await screen.button("Retry").last.click()
    await expect(screen.responses).to_have_text(["Another answer"])
    await screen.wait_complete()
    assert fake.requests[-1]["messages"] == fake.requests[-2]["messages"]
    fake.reset()
    await screen.button("Edit").first.click()
    await screen.chat.get_by_role("textbox").fill("two")
    await screen.chat.get_by_role("button", name="Submit").click()
    await expect(screen.responses).to_have_text(["You said: two"])
    await screen.wait_complete()
    await screen.button("Undo").last.click()
    await expect(screen.user_messages).to_have_count(0)
    await expect(screen.box).to_have_value("two")


async def test_export_and_import(
    visit: Visit, scripted: Playground, fake: FakeOpenAI, tmp_path: Path
) -> None:
    file = tmp_path / "talk.json"
    screen = await visit(scripted, "?temperature=0.5&system=Be+brief")
    await _send_and_wait(screen, "one", square(tmp_path))
    kept = json.loads(await screen.download("Export", file))
    assert [message["role"] for message in kept["messages"]] == ["user", "assistant"]

    other = await visit(scripted)  # another profile, which knows nothing of the first
    await other.choose("Import", file)
    await expect(other.responses).to_have_text(["You said: one"])
    await other.expect_image(50)
    await expect(other.setting("Temperature")).to_have_value("0.5")
    await _send_and_wait(other, "two")
    asked = fake.requests[-1]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief"}
    assert asked["messages"][1:3] == kept["messages"]
    assert asked["temperature"] == 0.5

    await other.choose("Import", written(tmp_path, "broken.json", '{"messages": 3}'))
    await expect(other.toast.first).to_contain_text("conversation")
    await _send_and_wait(other, "three")


async def test_settings_are_shared_in_the_url(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    prompt = "You & I are <b>brief</b>"
    screen = await visit(scripted)
    for label, value in {"Temperature": "0.25", "Max tokens": "77", "System prompt": prompt}.items():
        await screen.set(label, value)
    await screen.button("Share settings").click()
    await screen.page.wait_for_url("**/?*temperature=0.25*")

    other = await visit(scripted, "?" + screen.page.url.partition("?")[2])
    await expect(other.setting("Temperature")).to_have_value("0.25")
    await expect(other.setting("System prompt")).to_have_value(prompt)
    await _send_and_wait(other, "Hello")
    asked = fake.requests[-1]
    assert (asked["temperature"], asked["max_tokens"]) == (0.25, 77)
    assert asked["messages"][0] == {"role": "system", "content": prompt}
