"""An output that reaches ``max_tokens`` is completed; a shorter output is unchanged."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemma_model.engine_types import EngineOutput, PositionLogprobs
from gemma_wire import ChoiceGrammar, Grammar, JsonGrammar, LarkGrammar, Options, RegexGrammar

from .schemas import SCHEMAS
from .walks import BY_NAME, STOPS, TOOLS, Bench, bench_of, ids_of, valid


@pytest.fixture(scope="module")
def bench(tiny: Path) -> Iterator[Bench]:
    with bench_of(tiny) as bench:
        yield bench


NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TEXT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
DEEP = {"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}
GRAMMARS: dict[str, Grammar] = {
    "integer": JsonGrammar(json_schema=NUMBER),
    "string": JsonGrammar(json_schema=TEXT),
    "nested": JsonGrammar(json_schema=DEEP),
    "anything": JsonGrammar(json_schema={}),
    "enum": JsonGrammar(json_schema={"enum": ["green", "red", "a very long colour"]}),
    "regex": RegexGrammar(pattern="[a-z]+![0-9]{3}"),
    "choice": ChoiceGrammar(choices=("yes", "no", "neither of both")),
    "lark": LarkGrammar(text='start: "(" start? ")" | /[a-f]+/'),
}


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS.keys())
def test_output_that_fits_into_max_tokens_is_unchanged(bench: Bench, grammar: Grammar) -> None:
    for seed in range(8):
        free = bench.walk(Options(grammar=grammar), seed, 120)
        if not free.ended:
            continue
        length = len(free.ids)
        for max_tokens in {length, length + 1, length + 4, length + 16}:
            short = bench.walk(Options(grammar=grammar), seed, max_tokens)
            assert (short.ids, short.ended) == (free.ids, True)
        without_end = bench.walk(Options(grammar=grammar), seed, length - 1)
        assert without_end.ids == free.ids[:-1], "complete without its stop token"


@pytest.mark.parametrize("max_tokens", [6, 10, 14, 24, 40, 64, 100, 300])
@pytest.mark.parametrize("name", ["integer", "string", "nested", "anything"])
def test_truncated_json_is_completed(bench: Bench, name: str, max_tokens: int) -> None:
    grammar = GRAMMARS[name]
    assert isinstance(grammar, JsonGrammar)
    assert isinstance(grammar.json_schema, dict)
    for seed in range(20):
        walk = bench.walk(Options(grammar=grammar), seed, max_tokens)
        assert valid(walk.text, grammar.json_schema), walk.text
        assert len(walk.ids) <= max_tokens


def test_as_few_tokens_as_possible_are_replaced(bench: Bench) -> None:
    for seed in range(20):
        walk = bench.walk(Options(grammar=JsonGrammar(json_schema=TEXT)), seed, 60)
        assert walk.ended or len(walk.ids) >= 58


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("regex", "[a-z]+![0-9]{3}"), ("choice", "yes|no|neither of both"), ("lark", r"\(*[a-f]*\)*")],
)
def test_truncated_output_of_other_grammars_is_completed(bench: Bench, name: str, pattern: str) -> None:
    for max_tokens in (16, 24, 40):
        for seed in range(20):
            walk = bench.walk(Options(grammar=GRAMMARS[name]), seed, max_tokens)
            assert re.fullmatch(pattern, walk.text), walk.text
            assert walk.text.count("(") == walk.text.count(")")


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_the_shortest_output_of_every_schema_is_valid(bench: Bench, schema: dict[str, Any]) -> None:
    options = Options(grammar=JsonGrammar(json_schema=schema))
    made = bench.grammars.compile(options, 100, frozenset(STOPS))
    assert made is not None
    shortest = made.completion().shortest
    assert shortest is not None
    for seed in range(3):
        walk = bench.walk(options, seed, shortest)
        assert valid(walk.text, schema), walk.text


def test_truncated_tool_calls_are_completed(bench: Bench) -> None:
    options = Options(tools=TOOLS, tool_choice="required")
    for seed in range(40):
        walk = bench.walk(options, seed, 60)
        for call in walk.calls:
            assert call.name is not None
            assert valid(call.arguments, BY_NAME[call.name]), call.arguments


def test_sent_text_is_never_changed(bench: Bench) -> None:
    made = bench.grammars.compile(Options(grammar=JsonGrammar(json_schema=TEXT)), 40, frozenset(STOPS))
    assert made is not None
    constraint, budget = made.constraint.fork(), made.completion()
    sent: list[int] = []
    held_back = 0
    for count in range(1, 41):
        token_id = next(i for i in ids_of(constraint.allowed()) if i not in STOPS)
        constraint.advance(token_id)
        sent += budget.add(EngineOutput((token_id,), finish="length" if count == 40 else None))[0]
        held_back = max(held_back, count - len(sent))
    assert held_back <= 4
    assert valid(bench.table.decode(sent), TEXT)


def test_tokens_of_a_completion_have_the_minimum_logprob(bench: Bench) -> None:
    made = bench.grammars.compile(Options(grammar=JsonGrammar(json_schema=TEXT)), 12, frozenset(STOPS))
    assert made is not None
    constraint, budget = made.constraint.fork(), made.completion()
    scores: list[PositionLogprobs] = []
    for count in range(1, 13):
        token_id = next(i for i in ids_of(constraint.allowed()) if i not in STOPS)
        constraint.advance(token_id)
        step = EngineOutput(
            (token_id,), logprobs=(PositionLogprobs(-1.0),), finish="length" if count == 12 else None
        )
        scores += budget.add(step)[1]
    assert [score.logprob for score in scores][-1] == -9999.0
    assert {score.logprob for score in scores[:9]} == {-1.0}


def test_output_without_a_known_completion_is_truncated(bench: Bench) -> None:
    schema = {"type": "string", "minLength": 200, "maxLength": 210}
    walk = bench.walk(Options(grammar=JsonGrammar(json_schema=schema)), 0, 20)
    assert walk.truncated
    assert len(walk.ids) == 20
