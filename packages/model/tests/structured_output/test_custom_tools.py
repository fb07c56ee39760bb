"""The input of a custom tool fits its grammar, and a call ends where it should."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gemma_model.tool_calls import CALL_START, ToolCallParser, join_deltas
from gemma_wire import CustomInput, InvalidRequest, Options, Tool

from .walks import TOOLS, Bench, bench_of, ids_of, type_out

SUM = 'start: NUMBER ("+" NUMBER)*\nNUMBER: /[0-9]+/'
PATCH = 'start: "begin" LF line+ "end" LF?\nline: "+" /(.*)/ LF\n%import common.LF\n'


def custom(name: str, syntax: str, definition: str = "") -> Tool:
    return Tool(name=name, custom=CustomInput.model_validate({"syntax": syntax, "definition": definition}))


TEXT, LETTERS = custom("run", "text"), custom("pick", "regex", "[a-c]{2,4}")
ADD, APPLY = custom("add", "lark", SUM), custom("apply", "lark", PATCH)
ALL = (TEXT, LETTERS, ADD, APPLY, *TOOLS)


@pytest.fixture(scope="module")
def bench(tiny: Path) -> Iterator[Bench]:
    with bench_of(tiny) as bench:
        yield bench


def read(text: str, *tools: Tool) -> list[tuple[str | None, str, bool]]:
    """The calls in an output."""
    parser = ToolCallParser(frozenset(tool.name for tool in tools if tool.custom))
    deltas = parser.feed(text.partition(CALL_START)[2]) + parser.finish()
    return [(call.name, call.arguments, call.custom) for call in join_deltas(deltas)]


@pytest.mark.parametrize(
    ("said", "calls"),
    [
        ("<tool_call>run\nls -l\n\ncat a\n</tool_call>", [("run", "ls -l\n\ncat a", True)]),
        ("<tool_call>run\n\n</tool_call>", [("run", "", True)]),
        ("<tool_call>run\n</tool_call> <a>x\n</tool_call>", [("run", "</tool_call> <a>x", True)]),
        ("<tool_call>pick\nabc\n</tool_call>", [("pick", "abc", True)]),
        ("<tool_call>add\n1+22\n</tool_call>", [("add", "1+22", True)]),
        ("<tool_call>add\n1+22", [("add", "1+22", True)]),
        ("<tool_call>apply\nbegin\n+a < b\nend\n</tool_call>", [("apply", "begin\n+a < b\nend", True)]),
        (
            "Well. <tool_call>stop {}</tool_call>\n<tool_call>run\nx\n</tool_call>\n"
            "<tool_call>add\n1\n</tool_call>",
            [("stop", "{}", False), ("run", "x", True), ("add", "1", True)],
        ),
    ],
)  # fmt: skip
def test_what_may_be_said(bench: Bench, said: str, calls: list[tuple[str | None, str, bool]]) -> None:
    constraint = bench.constraint(Options(tools=ALL), max_tokens=1000)
    type_out(constraint, said)
    assert b"" in {bench.table[i] for i in ids_of(constraint.allowed())}, "the output may end here"
    assert read(said, *ALL) == calls


@pytest.mark.parametrize(
    "said",
    [
        "<tool_call>run ",
        "<tool_call>pick\nabd",
        "<tool_call>pick\na\n",
        "<tool_call>pick\nabcab",
        "<tool_call>add\n+",
        "<tool_call>add\n1+\n",
        "<tool_call>apply\nbegin\na",
        "<tool_call>run\nx\n</tool_call>y",
    ],
)
def test_what_may_not(bench: Bench, said: str) -> None:
    constraint = bench.constraint(Options(tools=ALL), max_tokens=1000)
    with pytest.raises(ValueError, match="does not allow the token"):
        type_out(constraint, said)


def test_a_grammar_that_matches_everything_ends_with_the_output(bench: Bench) -> None:
    greedy = custom("say", "lark", "start: /(?s:.*)/")
    constraint = bench.constraint(Options(tools=(greedy,), tool_choice="required"), max_tokens=1000)
    said = "<tool_call>say\none\n</tool_call>"
    type_out(constraint, said)
    assert b"" in {bench.table[i] for i in ids_of(constraint.allowed())}
    assert read(said, greedy) == [("say", "one", True)]


@pytest.mark.parametrize("tool", [LETTERS, ADD])
def test_random_models_call_them(bench: Bench, tool: Tool) -> None:
    options = Options(tools=(tool,), tool_choice="required", parallel_tool_calls=False)
    for seed in range(20):
        walk = bench.walk(options, seed, max_tokens=200)
        if walk.ended:
            ((name, text, _),) = read(walk.raw, tool)
            assert name == tool.name
            assert set(text) <= set("abc" if tool is LETTERS else "0123456789+"), text


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        (custom("f", "lark", "start: oops"), "oops"),
        (custom("f", "lark", "begin: /a/"), "start"),
        (custom("f", "regex", "a(?=b)"), "lookahead"),
        (custom("f", "regex", "("), "is not supported"),
    ],
)
def test_wrong_grammars_are_refused(bench: Bench, tool: Tool, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        bench.constraint(Options(tools=(TEXT, tool)))
    assert caught.value.field == "options.tools[1].custom.definition"
