import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_model.tool_calls import (
    CALL_START,
    JsonScanner,
    ToolCallParser,
    describe_tools,
    join_deltas,
    parameters_schema,
    render_calls,
)
from gemma_wire import CustomInput, Tool, ToolCall, ToolCallDelta

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(['"', "\\", "}{", "</tool_call>", "<tool_call>x "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(max_size=4), JSON, max_size=3).map(json.dumps)
CALLS = st.lists(st.tuples(st.sampled_from(["f", "get_weather", "a-b"]), ARGUMENTS), min_size=1, max_size=4)


def _written(calls: list[tuple[str, str]]) -> str:
    """What follows the first mark."""
    typed = [ToolCall(id="x", name=name, arguments=arguments) for name, arguments in calls]
    return render_calls(typed).removeprefix(CALL_START)


@given(calls=CALLS, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_written_keys_are_read_back_for_any_chunks(calls: list[tuple[str, str]], cuts: list[int]) -> None:
    text, parser = _written(calls), ToolCallParser()
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(borders)]
    read = join_deltas([delta for piece in pieces for delta in parser.feed(piece)])
    assert [(delta.name, delta.arguments) for delta in read] == calls
    assert [delta.index for delta in read] == list(range(len(calls)))
    assert len({delta.id for delta in read}) == len(calls)
    assert parser.calls == len(calls)


def test_the_name_comes_before_the_arguments_and_these_as_they_are_written() -> None:
    parser = ToolCallParser()
    fed = [parser.feed(piece) for piece in ("get_", "weather", " {", '"a": ', "1}", "</tool_call>")]
    assert fed[0] == fed[1] == fed[5] == []
    (first,) = fed[2]
    assert (first.name, first.arguments) == ("get_weather", "{")
    assert re.fullmatch(r"call_[0-9a-f]{24}", first.id or "")
    assert fed[3:5] == [[ToolCallDelta(index=0, arguments='"a": ')], [ToolCallDelta(index=0, arguments="1}")]]


@given(JSON.filter(lambda value: isinstance(value, dict | list)).map(json.dumps), st.text(max_size=5))
def test_the_scanner_finds_the_end_of_a_document(document: str, after: str) -> None:
    scanner = JsonScanner()
    assert scanner.feed(document + after) == len(document)
    assert (scanner.depth, scanner.in_string) == (0, False)


def test_tools_are_described_one_a_line() -> None:
    tools = [Tool(name="f"), Tool(name="g", description="Größe", parameters={"type": "object"})]
    lines = describe_tools(tools).splitlines()
    assert json.loads(lines[1]) == {"name": "f", "parameters": {}}
    assert lines[2] == '{"name": "g", "description": "Größe", "parameters": {"type": "object"}}'


@pytest.mark.parametrize(
    ("parameters", "closed"),
    [
        (None, True),
        ({"properties": {"a": {}}}, True),
        ({"properties": {"a": {}}, "required": ["a"]}, True),
        ({"properties": {"a": {}}, "required": ["b"]}, False),
        ({"properties": {"a": {}}, "allOf": [{"required": ["b"]}]}, False),
        ({"type": "object"}, False),
        ({"properties": {"a": {}}, "additionalProperties": True}, False),
    ],
)
def test_arguments_are_an_object_without_unknown_parts_where_that_is_safe(
    parameters: dict[str, object] | None, closed: bool
) -> None:
    schema = parameters_schema(Tool(name="f", parameters=parameters))
    assert schema["type"] == "object"
    assert (schema.get("additionalProperties") is False) == closed


@given(
    texts=st.lists(st.text("ab\n<>/tol_c", max_size=20), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_inputs_of_custom_tools_are_read_back_for_any_chunks(texts: list[str], cuts: list[int]) -> None:
    written = render_calls([ToolCall(id="x", name="run", arguments=text, custom=True) for text in texts])
    text, parser = written.removeprefix(CALL_START), ToolCallParser(frozenset({"run"}))
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    deltas = [delta for start, end in pairwise(borders) for delta in parser.feed(text[start:end])]
    read = join_deltas(deltas + parser.finish())
    assert all(delta.name == "run" and delta.custom for delta in read)
    assert [delta.arguments for delta in read] == texts


def test_an_input_without_an_end_is_complete_with_the_output() -> None:
    parser = ToolCallParser(frozenset({"run"}))
    (delta,) = join_deltas([*parser.feed("run\nls\n</tool"), *parser.finish()])
    assert delta.arguments == "ls\n</tool"


def test_custom_tools_in_the_prompt() -> None:
    grammar = CustomInput(syntax="regex", definition="[a-c]+")
    tools = [Tool(name="run", description="Runs.", custom=CustomInput()), Tool(name="pick", custom=grammar)]
    text = describe_tools([*tools, Tool(name="clock")])
    assert '{"name": "run", "description": "Runs.", "input": "text"}' in text
    assert '{"name": "pick", "input": {"regex": "[a-c]+"}}' in text
    assert "has an input instead of parameters" in text
    assert "input" not in describe_tools([Tool(name="clock")])
