"""Servers that die, come back, or are not there yet."""

from collections.abc import Iterator

import psutil
from playwright.async_api import expect

from fake_openai import FakeOpenAI, HangUp, Piece, Request
from materials import LONG
from playgrounds import Playground
from screen import Visit
from stack import Stack


def _dies(request: Request) -> Iterator[Piece]:
    yield from ("It ", "began ", "well")
    raise HangUp


async def test_a_server_that_dies_in_mid_answer(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    fake.script = _dies
    screen = await visit(scripted)
    await screen.say("one")
    await expect(screen.chat).to_contain_text("Not answered")
    await expect(screen.chat).to_contain_text("It began well")
    await screen.wait_answered()
    fake.stop()
    await screen.say("two")
    await expect(screen.chat).to_contain_text("does not answer")
    await screen.wait_answered()
    fake.reset()
    await screen.say("three")
    await expect(screen.answers.last).to_have_text("You said: twothree")  # what was not answered is asked too


async def test_the_gateway_is_killed_in_mid_answer_and_comes_back(
    visit: Visit, real: Playground, tiny: Stack
) -> None:
    screen = await visit(real, LONG)
    await screen.say("Tell me a story")
    await expect(screen.answers.last).not_to_be_empty()
    _gateway(tiny).kill()
    await expect(screen.chat).to_contain_text("Not answered")
    await screen.wait_answered()
    tiny.wait_ready()
    await screen.come("?max_tokens=8")
    await screen.say("And then?")
    await expect(screen.fact("completion tokens")).not_to_have_text("–")


def _gateway(stack: Stack) -> psutil.Process:
    return next(each for each in stack.tree() if "gemma_gateway" in " ".join(each.cmdline()))


async def test_the_status_tells_the_model_and_recovers(
    visit: Visit, scripted: Playground, fake: FakeOpenAI
) -> None:
    screen = await visit(scripted)
    await screen.tab("Status")
    health, models = screen.fact("health", "#health"), screen.fact("models", "#health")
    await expect(models).to_have_text("a-model-of-the-test")
    await expect(health).to_contain_text("ready")
    fake.stop()
    await expect(health).to_contain_text("does not answer")
    fake.start()
    await expect(health).to_contain_text("ready")
    await expect(models).to_have_text("a-model-of-the-test")


async def test_the_status_of_the_real_stack(visit: Visit, real: Playground, tiny: Stack) -> None:
    screen = await visit(real)
    await screen.tab("Status")
    await expect(screen.fact("models", "#health")).to_contain_text("gemma3n")
    await expect(screen.fact("running", "#health")).to_have_text("0")
    await expect(screen.fact("waiting", "#health")).to_have_text("0")
