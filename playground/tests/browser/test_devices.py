"""What comes from the clipboard, the mouse, the camera and the microphone, made up by the browser itself."""

import base64
from pathlib import Path

from playwright.async_api import expect

from fake_openai import FakeOpenAI
from materials import square
from playgrounds import Playground
from screen import Screen, Visit

HAND_OVER = """([kind, encoded]) => {
    const bytes = Uint8Array.from(atob(encoded), (each) => each.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "handed.png", { type: "image/png" }));
    const field = document.querySelector("#message textarea");
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
        : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
    field.dispatchEvent(event);
}"""

FILMING = "[...document.querySelectorAll('video')].some((it) => it.videoWidth && it.readyState >= 2)"


async def _attached(screen: Screen, number: int = 1) -> None:
    await expect(screen.page.locator("#message .thumbnail-item")).to_have_count(number)


def _kinds(fake: FakeOpenAI) -> list[str]:
    return [part["type"] for part in fake.requests[-1]["messages"][-1]["content"]]


async def test_images_can_be_pasted_and_dropped(
    visit: Visit, scripted: Playground, fake: FakeOpenAI, tmp_path: Path
) -> None:
    screen = await visit(scripted)
    encoded = base64.b64encode(square(tmp_path).read_bytes()).decode()
    for number, kind in enumerate(("paste", "drop"), start=1):
        await screen.page.evaluate(HAND_OVER, [kind, encoded])
        await _attached(screen, number)
    await screen.send_message("What are these?")
    await screen.wait_complete()
    assert _kinds(fake) == ["image_url", "image_url", "text"]


async def test_an_image_from_the_camera(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    screen = await visit(scripted, permissions=["camera"])
    await screen.part("Camera").click()
    await screen.page.get_by_text("Click to Access Webcam").click()
    await screen.page.wait_for_function(FILMING)  # a click before the first frame is lost
    await screen.button("capture photo").click()
    await _attached(screen)
    await screen.send_message("What do you see?")
    await screen.wait_complete()
    assert _kinds(fake) == ["image_url", "text"]


async def test_audio_from_the_microphone(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    screen = await visit(scripted, permissions=["microphone"])
    await screen.button("Record audio").click()
    await screen.button("Start recording").click()
    await screen.page.wait_for_timeout(1500)
    await screen.button("Stop recording").click()
    await screen.button("Attach audio").click()
    await _attached(screen)
    await screen.send_message("What do you hear?")
    await screen.wait_complete()
    assert _kinds(fake) == ["input_audio", "text"]
    sound = base64.b64decode(fake.requests[-1]["messages"][-1]["content"][0]["input_audio"]["data"])
    assert sound.startswith(b"RIFF")
