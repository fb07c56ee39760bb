"""``/v1/responses``: custom tools."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, assert_error
from packages.gateway.tests.response_helpers import WEATHER, ask, end, respond, stream

from gemma_wire import Chunk, CustomInput, InvalidRequest, Tool, ToolCall, ToolCallDelta

PATCH: dict[str, Any] = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Changes files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x+/"},
}
RUN = {"type": "custom", "name": "run"}
CALL = [
    Chunk(tool_calls=(ToolCallDelta(index=0, id="call_1", name="run", custom=True),)),
    Chunk(tool_calls=(ToolCallDelta(index=0, arguments="ls ", custom=True),)),
    Chunk(tool_calls=(ToolCallDelta(index=0, arguments="-l", custom=True),)),
    end("tool_calls"),
]


@pytest.mark.parametrize(
    ("choice", "names", "required"),
    [
        ("auto", ["apply_patch", "weather", "run"], "auto"),
        ({"type": "custom", "name": "run"}, ["run"], "required"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "custom", "name": "apply_patch"}]},
            ["apply_patch"],
            "auto",
        ),
    ],
)
async def test_what_the_model_receives(
    client: httpx.AsyncClient, engine: FakeEngine, choice: Any, names: list[str], required: str
) -> None:
    response = await respond(client, ask(tools=[PATCH, WEATHER, RUN], tool_choice=choice))
    assert response["tools"][0] == PATCH
    assert response["tools"][2] == {**RUN, "description": "", "format": {"type": "text"}}
    options = engine.asked[-1].options
    assert ([tool.name for tool in options.tools], options.tool_choice) == (names, required)
    grammar = CustomInput(syntax="lark", definition="start: /x+/")
    known = {
        "apply_patch": Tool(name="apply_patch", description="Changes files.", custom=grammar),
        "run": Tool(name="run", custom=CustomInput()),
    }
    assert all(known.get(tool.name, tool) == tool for tool in options.tools)


async def test_calls(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(CALL)
    (item,) = (await respond(client, ask(tools=[RUN])))["output"]
    identity = item.pop("id")
    assert identity.startswith("ctc_")
    assert item == {"type": "custom_tool_call", "call_id": "call_1", "name": "run", "input": "ls -l"}
    result = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "a.py"}
    await respond(client, ask([{"role": "user", "content": "Hi"}, {**item, "id": identity}, result]))
    _, called, answered = engine.asked[-1].messages or ()
    assert called.tool_calls == (ToolCall(id="call_1", name="run", arguments="ls -l", custom=True),)
    assert (answered.role, answered.content, answered.tool_call_id) == ("tool", "a.py", "call_1")


async def test_streamed_calls(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = list(CALL)
    events = await stream(client, ask(tools=[RUN]))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in events[3:5]] == ["ls ", "-l"]
    assert events[5]["input"] == events[6]["item"]["input"] == "ls -l"
    assert events[7]["response"]["output"] == [events[6]["item"]]


async def test_a_bad_grammar_is_named(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = [InvalidRequest("is not supported: x", "options.tools[0].custom.definition")]
    response = await client.post("/v1/responses", json=ask(tools=[{"type": "web_search"}, PATCH]))
    assert_error(response, 400, "tools[1].format.definition", "invalid_value")


async def test_refused(client: httpx.AsyncClient) -> None:
    async def refused(param: str, code: str, **rest: Any) -> None:
        assert_error(await client.post("/v1/responses", json=ask(**rest)), 400, param, code)

    await refused("tools[0].name", "missing_required_parameter", tools=[{"type": "custom"}])
    unknown = {**RUN, "format": {"type": "grammar", "syntax": "ebnf", "definition": "x"}}
    await refused("tools[0].format.syntax", "invalid_value", tools=[unknown])
    choice = {"type": "custom", "name": "weather"}
    await refused("tool_choice.name", "invalid_value", tools=[RUN, WEATHER], tool_choice=choice)
