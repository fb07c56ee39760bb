"""Arguments of random tool calls are valid for their tools; unsupported tools are refused."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemma_model.engine_types import EngineOutput
from gemma_model.tool_calls import CALL_START, ToolCallParser
from gemma_wire import InvalidRequest, JsonGrammar, Options, Tool

from .walks import BY_NAME, STOPS, TOOLS, Bench, bench_of, ids_of, type_out, valid


@pytest.fixture(scope="module")
def bench(tiny: Path) -> Iterator[Bench]:
    with bench_of(tiny) as bench:
        yield bench


@pytest.mark.parametrize(
    "options",
    [
        Options(tools=TOOLS, tool_choice="required"),
        Options(tools=TOOLS[:1], tool_choice="required", parallel_tool_calls=False),
        Options(tools=TOOLS, tool_choice="required", grammar=JsonGrammar(json_schema={"type": "integer"})),
    ],
    ids=["required", "named", "required with a grammar"],
)
def test_required_calls_are_made_with_valid_arguments(bench: Bench, options: Options) -> None:
    for seed in range(60):
        walk = bench.walk(options, seed)
        assert walk.text == ""
        assert walk.calls
        assert options.parallel_tool_calls or len(walk.calls) == 1
        for call in walk.calls:
            assert call.name is not None
            assert valid(call.arguments, BY_NAME[call.name]), call.arguments


@pytest.mark.parametrize("strict", [True, False])
def test_a_call_is_constrained_from_its_start_tag(bench: Bench, strict: bool) -> None:
    tools = tuple(tool.model_copy(update={"strict": strict}) for tool in TOOLS)
    constraint = bench.constraint(Options(tools=tools), max_tokens=1000)
    type_out(constraint, "Let me see < what <tool> I have <tool_call>")
    names = {bench.table[i] for i in ids_of(constraint.allowed())}
    assert names <= {b"g", b"ge", b"get", b"s", b"st", b"sto", b"stop"}
    with pytest.raises(ValueError, match="does not allow the token"):
        type_out(constraint.fork(), "unheard_of ")
    type_out(constraint, 'get_weather {"city": "<tool_call>", "unit":"C"}</tool_call>')
    after = {bench.table[i] for i in ids_of(constraint.allowed())}
    assert after == {b"", b"\n"}, "the end, or another call"


def test_text_without_a_call_is_not_constrained(bench: Bench) -> None:
    walks = [bench.walk(Options(tools=TOOLS), seed, 60) for seed in range(20)]
    assert any(walk.ended for walk in walks)
    assert not any(walk.calls for walk in walks)
    assert {len(walk.ids) for walk in walks if not walk.ended} == {60}


def test_text_or_a_tool_call(bench: Bench) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    options = Options(tools=TOOLS, grammar=JsonGrammar(json_schema=schema))
    walks = [bench.walk(options, seed) for seed in range(60)]
    texts = [walk for walk in walks if not walk.calls]
    assert 5 < len(texts) < 55
    assert all(valid(walk.text, schema) for walk in texts)
    calls = [call for walk in walks for call in walk.calls]
    assert all(call.name and valid(call.arguments, BY_NAME[call.name]) for call in calls)


def test_a_tool_that_works_with_auto_works_with_required(bench: Bench) -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"type": "array", "uniqueItems": True}},
        "required": ["a"],
    }
    tools = (Tool(name="f", parameters=parameters),)
    constraint = bench.constraint(Options(tools=tools))
    with pytest.raises(ValueError, match="does not allow the token"):
        type_out(constraint, '<tool_call>f {"b')
    assert bench.walk(Options(tools=tools, tool_choice="required"), 0).calls


def test_a_truncated_call_after_text_is_completed(bench: Bench) -> None:
    for seed in range(20):
        rng, text = random.Random(seed), 'He said "hi <tool_call>get_weather {"city": "'
        made = bench.grammars.compile(Options(tools=TOOLS), 160, frozenset(STOPS))
        assert made is not None
        constraint, budget = made.constraint.fork(), made.completion()
        typed = [17 + byte for byte in text.encode()]
        type_out(constraint, text)
        sent = list(budget.add(EngineOutput(tuple(typed)))[0])
        for count in range(len(typed) + 1, 161):
            token_id = rng.choice([i for i in ids_of(constraint.allowed()) if i not in STOPS])
            constraint.advance(token_id)
            sent += budget.add(EngineOutput((token_id,), finish="length" if count == 160 else None))[0]
        assert len(sent) <= 160
        (call, *_) = ToolCallParser().feed(bench.table.decode(sent).partition(CALL_START)[2])
        assert valid(call.arguments, BY_NAME["get_weather"])


def test_output_is_truncated_if_no_completion_fits_into_max_tokens(bench: Bench) -> None:
    options = Options(tools=TOOLS, tool_choice="required")
    walk = bench.walk(options, 0, max_tokens=5)
    assert walk.truncated
    assert len(walk.ids) == 5


def test_a_tool_whose_arguments_are_not_an_object_is_refused(bench: Bench) -> None:
    tools = (TOOLS[0], Tool(name="f", parameters={"type": "array"}))
    with pytest.raises(InvalidRequest, match="arguments must be an 'object'") as caught:
        bench.constraint(Options(tools=tools))
    assert caught.value.field == "options.tools[1].parameters"


@pytest.mark.parametrize("required", ["a", None, [{}], [["a"]]])
def test_an_invalid_schema_is_refused(bench: Bench, required: object) -> None:
    tool = Tool(name="f", parameters={"properties": {"a": {}}, "required": required})
    with pytest.raises(InvalidRequest, match="required") as caught:
        bench.constraint(Options(tools=(tool,)))
    assert caught.value.field == "options.tools[0].parameters"
