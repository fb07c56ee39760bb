"""Servers that die, restart, or are not available yet."""

from collections.abc import Iterator

import psutil
from playwright.async_api import expect

from fake_openai import ConnectionLost, FakeOpenAI, Part, Request
from materials import LONG
from playgrounds import Playground
from screen import Visit
from stack import Stack


def _dies(request: Request) -> Iterator[Part]:
    yield from ("It ", "began ", "well")
    raise ConnectionLost


async def test_a_server_that_dies_during_a_response(
    visit: Visit, scripted: Playground, fake: FakeOpenAI
) -> None:
    fake.script = _dies
    screen = await visit(scripted)
    await screen.send_message("one")
    await expect(screen.chat).to_contain_text("Error")
    await expect(screen.chat).to_contain_text("It began well")
    await screen.wait_complete()
    fake.stop()
    await screen.send_message("two")
    await expect(screen.chat).to_contain_text("does not respond")
    await screen.wait_complete()
    fake.reset()
    await screen.send_message("three")
    await expect(screen.responses.last).to_have_text(
        "You said: twothree"
    )  # a message without a response is sent again


async def test_the_gateway_is_killed_during_a_response_and_restarts(
    visit: Visit, real: Playground, tiny: Stack
) -> None:
    screen = await visit(real, LONG)
    await screen.send_message("Tell me a story")
    await expect(screen.responses.last).not_to_be_empty()
    _gateway(tiny).kill()
    await expect(screen.chat).to_contain_text("Error")
    await screen.wait_complete()
    tiny.wait_ready()
    await screen.open("?max_tokens=8")
    await screen.send_message("And then?")
    await expect(screen.metric("completion tokens")).not_to_have_text("–")


def _gateway(stack: Stack) -> psutil.Process:
    return next(each for each in stack.tree() if "gemma_gateway" in " ".join(each.cmdline()))


async def test_the_status_shows_the_model_and_recovers(
    visit: Visit, scripted: Playground, fake: FakeOpenAI
) -> None:
    screen = await visit(scripted)
    await screen.tab("Status")
    health, models = screen.metric("health", "#health"), screen.metric("models", "#health")
    await expect(models).to_have_text("a-model-of-the-test")
    await expect(health).to_contain_text("ready")
    fake.stop()
    await expect(health).to_contain_text("does not respond")
    fake.start()
    await expect(health).to_contain_text("ready")
    await expect(models).to_have_text("a-model-of-the-test")


async def test_the_status_of_the_real_stack(visit: Visit, real: Playground, tiny: Stack) -> None:
    screen = await visit(real)
    await screen.tab("Status")
    await expect(screen.metric("models", "#health")).to_contain_text("gemma3n")
    await expect(screen.metric("running", "#health")).to_have_text("0")
    await expect(screen.metric("waiting", "#health")).to_have_text("0")
