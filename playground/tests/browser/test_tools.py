"""Tool calls: the user sees the call and enters its result."""

import json
from collections.abc import Iterable
from typing import Any

from playwright.async_api import expect

from fake_openai import FakeOpenAI, Part, Request, call
from playgrounds import Playground
from screen import Visit

TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]


def _model(request: Request) -> Iterable[Part]:
    """Calls once, then returns the result as text."""
    last: dict[str, Any] = request["messages"][-1]
    if last["role"] == "tool":
        return [f"It is {last['content']}."]
    return [call("get_weather", '{"city": "Oslo"}')]


async def test_a_tool_call_is_shown_and_its_result_sent(
    visit: Visit, scripted: Playground, fake: FakeOpenAI
) -> None:
    fake.script = _model
    screen = await visit(scripted)
    await screen.set("Tools", json.dumps(TOOLS))
    await screen.send_message("What is the weather in Oslo?")
    await expect(screen.chat).to_contain_text("Tool call: get_weather")
    await expect(screen.chat).to_contain_text("Oslo")
    assert fake.requests[-1]["tools"] == TOOLS
    await expect(screen.chat).to_contain_text("your next message is its result")
    await screen.wait_complete()
    await screen.send_message("sunny")
    await expect(screen.responses.last).to_contain_text("It is sunny.")
    called, result = fake.requests[-1]["messages"][-2:]
    assert called["tool_calls"][0]["function"]["name"] == "get_weather"
    assert (result["role"], result["tool_call_id"]) == ("tool", "call_1")
    await screen.wait_stored("It is sunny.")
    await screen.reload()
    await expect(screen.responses.last).to_contain_text("It is sunny.")


async def test_tools_with_invalid_json_are_reported(
    visit: Visit, scripted: Playground, fake: FakeOpenAI
) -> None:
    screen = await visit(scripted)
    await screen.set("Tools", "{broken")
    await screen.send_message("Hello")
    await expect(screen.chat).to_contain_text("Tools")
    await expect(screen.chat).to_contain_text("JSON")
    await screen.wait_complete()
    await screen.wait_stored("Hello")  # the last step of a response
    assert not fake.requests
    await screen.set("Tools", "")
    await expect(screen.setting("Tools")).to_have_value("")
    await screen.button("Retry").last.dispatch_event("click")  # also if it is scrolled out of view
    await expect(screen.responses.last).to_have_text("You said: Hello")
