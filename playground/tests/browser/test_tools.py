"""A model that calls a function: the visitor sees the call and answers it."""

import json
from collections.abc import Iterable
from typing import Any

from playwright.async_api import expect

from fake_openai import FakeOpenAI, Piece, Request, call
from playgrounds import Playground
from screen import Visit

TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]


def _model(request: Request) -> Iterable[Piece]:
    """Calls once, then tells what came back."""
    last: dict[str, Any] = request["messages"][-1]
    if last["role"] == "tool":
        return [f"It is {last['content']}."]
    return [call("get_weather", '{"city": "Oslo"}')]


async def test_a_call_is_shown_and_answered(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    fake.script = _model
    screen = await visit(scripted)
    await screen.set("Tools", json.dumps(TOOLS))
    await screen.say("What is the weather in Oslo?")
    await expect(screen.chat).to_contain_text("Call of get_weather")
    await expect(screen.chat).to_contain_text("Oslo")
    assert fake.asked[-1]["tools"] == TOOLS
    await expect(screen.chat).to_contain_text("your next message is its answer")
    await screen.wait_answered()
    await screen.say("sunny")
    await expect(screen.answers.last).to_contain_text("It is sunny.")
    called, answer = fake.asked[-1]["messages"][-2:]
    assert called["tool_calls"][0]["function"]["name"] == "get_weather"
    assert (answer["role"], answer["tool_call_id"]) == ("tool", "call_1")
    await screen.wait_stored("It is sunny.")
    await screen.reload()
    await expect(screen.answers.last).to_contain_text("It is sunny.")


async def test_tools_that_are_no_json_are_told(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    screen = await visit(scripted)
    await screen.set("Tools", "{broken")
    await screen.say("Hello")
    await expect(screen.chat).to_contain_text("Tools")
    await expect(screen.chat).to_contain_text("JSON")
    await screen.wait_answered()
    await screen.wait_stored("Hello")  # the last that an answer does
    assert not fake.asked
    await screen.set("Tools", "")
    await expect(screen.setting("Tools")).to_have_value("")
    await screen.button("Retry").last.dispatch_event("click")  # wherever the page has scrolled
    await expect(screen.answers.last).to_have_text("You said: Hello")
