import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gemma_model.grammar import GrammarConstraint, Grammars, Landings
from gemma_model.landing import ids_of
from gemma_model.output import TextStream, TokenBytes
from gemma_model.tools import CALL_START, CallParser, join_deltas
from gemma_wire import (
    ChoiceGrammar,
    Grammar,
    InvalidRequest,
    JsonGrammar,
    LarkGrammar,
    Options,
    RegexGrammar,
    Tool,
    ToolCallDelta,
)

from .schemas import REFUSED, SCHEMAS

VOCABULARY, STOPS, SOFT = 544, (1, 9), (513, 529)
TOOLS = (
    Tool(
        name="get_weather",
        parameters={
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "unit": {"enum": ["C", "F"]},
            },
            "required": ["city", "unit"],
        },
    ),
    Tool(name="get", parameters={"type": "object", "properties": {"tags": {"type": "array"}}}),
    Tool(name="stop"),
)
BY_NAME = {tool.name: tool.parameters or {"maxProperties": 0} for tool in TOOLS}


@dataclass
class Walk:
    """What a model of random weights says under a constraint: every allowed token is as likely."""

    text: str
    calls: list[ToolCallDelta]
    ended: bool
    cut_short: bool
    tokens: int


@dataclass
class Bench:
    grammars: Grammars
    table: TokenBytes

    def walk(self, options: Options, seed: int, max_tokens: int = 160) -> Walk:
        landings, rng, ids = Landings(), random.Random(seed), list[int]()
        constraint = self.grammars.constraint(options, max_tokens, landings)
        assert constraint is not None
        constraint = constraint.fork()
        ended = False
        while len(ids) < max_tokens and not ended:
            allowed = ids_of(constraint.allowed())
            assert allowed[-1] < SOFT[0]
            ids.append(rng.choice(allowed))
            ended = ids[-1] in STOPS
            if not ended:
                constraint.advance(ids[-1])
        call_start = CALL_START if options.tools else ""
        stream = TextStream(self.table, (), frozenset(STOPS), call_start, options.grammar is not None)
        said = stream.feed(ids) + stream.finish()
        calls = join_deltas(CallParser().feed(said.call))
        return Walk(said.text, calls, ended, landings.cut_short(ids), len(ids))

    def constraint(self, options: Options, max_tokens: int = 100) -> GrammarConstraint:
        made = self.grammars.constraint(options, max_tokens, Landings())
        assert made is not None
        return made


@pytest.fixture(scope="module")
def bench(tiny: Path) -> Iterator[Bench]:
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    table = TokenBytes(tokenizer)
    grammars = Grammars(tokenizer, table, VOCABULARY, SOFT, STOPS, max_bytes=20_000)
    yield Bench(grammars, table)
    grammars.close()


def _type(constraint: GrammarConstraint, text: str) -> None:
    for byte in text.encode():
        constraint.advance(17 + byte)  # the tiny tokenizer's byte tokens


def _valid(instance: str, schema: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(json.loads(instance)))


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_json_fits_its_schema_however_random_the_model(bench: Bench, schema: dict[str, Any]) -> None:
    options = Options(grammar=JsonGrammar(json_schema=schema))
    for seed in range(5):
        walk = bench.walk(options, seed, max_tokens=400)
        assert walk.ended
        assert _valid(walk.text, schema), walk.text


@pytest.mark.parametrize(("keyword", "schema"), REFUSED.items())
@pytest.mark.parametrize("strict", [True, False])
def test_what_cannot_be_honoured_is_refused_by_its_keyword(
    bench: Bench, keyword: str, schema: dict[str, Any], strict: bool
) -> None:
    if strict and keyword in ("anyOf", "minItems"):
        keyword = "required property 'a' is unsatisfiable"
    tool = Tool(
        name="f", parameters={"type": "object", "properties": {"a": schema}, "required": ["a"]}, strict=True
    )
    options = Options(tools=(TOOLS[0], tool)) if strict else Options(grammar=JsonGrammar(json_schema=schema))
    with pytest.raises(InvalidRequest, match=re.escape(keyword)) as caught:
        bench.constraint(options)
    assert caught.value.field == ("options.tools[1].parameters" if strict else "options.grammar")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "options",
    [
        Options(tools=TOOLS, tool_choice="required"),
        Options(tools=TOOLS[:1], tool_choice="required", parallel_tool_calls=False),
        Options(tools=TOOLS, tool_choice="required", grammar=JsonGrammar(json_schema={"type": "integer"})),
    ],
    ids=["required", "named", "required beside a grammar"],
)
def test_required_calls_are_made_and_fit(bench: Bench, options: Options) -> None:
    for seed in range(200):
        walk = bench.walk(options, seed)
        assert walk.ended
        assert walk.text == ""
        assert walk.calls
        assert options.parallel_tool_calls or len(walk.calls) == 1
        for call in walk.calls:
            assert call.name is not None
            assert _valid(call.arguments, BY_NAME[call.name]), call.arguments


@pytest.mark.parametrize("strict", [True, False])
def test_a_call_fits_from_where_it_begins(bench: Bench, strict: bool) -> None:
    tools = tuple(tool.model_copy(update={"strict": strict}) for tool in TOOLS)
    constraint = bench.constraint(Options(tools=tools), max_tokens=1000)
    _type(constraint, "Let me see < what <tool> I have <tool_call>")
    names = {bench.table[i] for i in ids_of(constraint.allowed())}
    assert names <= {b"g", b"ge", b"get", b"s", b"st", b"sto", b"stop"}
    with pytest.raises(ValueError, match="cannot be followed"):
        _type(constraint.fork(), "unheard_of ")
    _type(constraint, 'get_weather {"city": "<tool_call>", "unit":"C"}</tool_call>')
    after = {bench.table[i] for i in ids_of(constraint.allowed())}
    assert after == {b"", b"\n"}, "the end, or another call"


def test_without_a_call_text_is_free(bench: Bench) -> None:
    walks = [bench.walk(Options(tools=TOOLS), seed, 60) for seed in range(20)]
    assert any(walk.ended for walk in walks)
    assert not any(walk.calls or walk.cut_short for walk in walks)
    assert {walk.tokens for walk in walks if not walk.ended} == {60}


def test_an_answer_or_a_call(bench: Bench) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    options = Options(tools=TOOLS, grammar=JsonGrammar(json_schema=schema))
    walks = [bench.walk(options, seed) for seed in range(200)]
    assert all(walk.ended for walk in walks)
    answers = [walk for walk in walks if not walk.calls]
    assert 20 < len(answers) < 180
    assert all(_valid(walk.text, schema) for walk in answers)
    calls = [call for walk in walks for call in walk.calls]
    assert all(call.name and _valid(call.arguments, BY_NAME[call.name]) for call in calls)


def test_a_tool_that_is_not_strict_is_honoured_as_far_as_possible(bench: Bench) -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"type": "integer", "not": {"const": 3}}},
        "required": ["a"],
    }
    constraint = bench.constraint(Options(tools=(Tool(name="f", parameters=parameters),)))
    with pytest.raises(ValueError, match="cannot be followed"):
        _type(constraint, '<tool_call>f {"b')
    with pytest.raises(InvalidRequest, match="not"):
        bench.constraint(Options(tools=(Tool(name="f", parameters=parameters),), tool_choice="required"))


GRAMMARS: list[tuple[Grammar, str]] = [
    (RegexGrammar(pattern=r"[a-c]{2,5}-\d+"), r"[a-c]{2,5}-[0-9]+"),
    (RegexGrammar(pattern='(ja|nein)/"é"\n?'), '(ja|nein)/"é"\n?'),
    (ChoiceGrammar(choices=("yes", "no", 'may"be\n', "ñ🙂", "yes and no")), 'yes|no|may"be\n|ñ🙂|yes and no'),
    (
        LarkGrammar(text='start: "(" sum ")"\nsum: N ("+" N)*\nN: /[0-9]{1,3}/'),
        r"\([0-9]{1,3}(\+[0-9]{1,3})*\)",
    ),
]


@pytest.mark.parametrize(("grammar", "pattern"), GRAMMARS)
def test_other_grammars_are_kept_to(bench: Bench, grammar: Grammar, pattern: str) -> None:
    walks = [bench.walk(Options(grammar=grammar), seed) for seed in range(200)]
    assert all(walk.ended and re.fullmatch(pattern, walk.text) for walk in walks)


@settings(max_examples=30, deadline=None)
@given(
    choices=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), min_size=1, max_size=4)
)
def test_any_text_can_be_a_choice(bench: Bench, choices: list[str]) -> None:
    options = Options(grammar=ChoiceGrammar(choices=tuple(choices)))
    assert bench.walk(options, 0).text in choices


@pytest.mark.parametrize(
    "grammar",
    [
        LarkGrammar(text="start: nowhere"),
        LarkGrammar(text="start: <image_soft_token>"),
        LarkGrammar(text="start: <[513]>"),
        LarkGrammar(text="start: start"),
        RegexGrammar(pattern="("),
        RegexGrammar(pattern=r"(?<=a)b"),
        JsonGrammar(json_schema=False),
        JsonGrammar(json_schema={"title": "x" * 20_000}),
    ],
)
def test_what_is_no_grammar_is_refused(bench: Bench, grammar: Grammar) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot be honoured: .") as caught:
        bench.constraint(Options(grammar=grammar))
    assert caught.value.field == "options.grammar"


@pytest.mark.parametrize("max_tokens", [24, 40, 64, 100, 300])
def test_an_answer_lands_before_its_tokens_are_used_up(bench: Bench, max_tokens: int) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    options = Options(grammar=JsonGrammar(json_schema=schema))
    walks = [bench.walk(options, seed, max_tokens) for seed in range(40)]
    assert all(walk.ended and _valid(walk.text, schema) for walk in walks)
    assert any(walk.cut_short for walk in walks)
    assert all(walk.tokens > max_tokens - 40 for walk in walks if walk.cut_short)


def test_a_call_after_text_lands_too(bench: Bench) -> None:
    for seed in range(20):
        landings, rng, text = Landings(), random.Random(seed), 'He said "hi <tool_call>get_weather {"city": "'
        constraint = bench.grammars.constraint(Options(tools=TOOLS), 160, landings)
        assert constraint is not None
        _type(constraint, text)
        ids: list[int] = []
        while not set(ids) & set(STOPS):
            ids.append(rng.choice(ids_of(constraint.allowed())))
            if ids[-1] not in STOPS:
                constraint.advance(ids[-1])
        assert len(text) + len(ids) <= 160
        (call, *_) = CallParser().feed(text.partition(CALL_START)[2] + bench.table.spell_out(ids[:-1]))
        assert _valid(call.arguments, BY_NAME["get_weather"])


def test_where_nothing_fits_the_tokens_the_answer_is_cut(bench: Bench) -> None:
    options = Options(tools=TOOLS, tool_choice="required")
    assert not bench.walk(options, 0, max_tokens=5).ended


def test_forks_go_their_own_ways(bench: Bench) -> None:
    one = bench.constraint(Options(grammar=ChoiceGrammar(choices=("ab", "ac"))))
    _type(one, "a")
    two = one.fork()
    _type(one, "b")
    assert {bench.table[i] for i in ids_of(one.allowed())} == {b""}
    assert {bench.table[i] for i in ids_of(two.allowed())} == {b"b", b"c"}


def test_masks_have_a_bit_for_each_token_of_the_model(bench: Bench) -> None:
    mask = bench.constraint(Options(grammar=RegexGrammar(pattern="(?s:.*)"))).allowed()
    assert mask.dtype == np.int32
    assert mask.shape == (-(-VOCABULARY // 32),)


def test_a_grammar_is_tried_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(grammar=RegexGrammar(pattern="once"))
    bench.constraint(options)
    monkeypatch.setattr(bench.grammars, "_complaint", lambda notation: pytest.fail("tried again"))
    bench.constraint(options)


def test_requests_do_not_wear_out_a_grammar(bench: Bench) -> None:
    options = Options(grammar=RegexGrammar(pattern="(.*a.{18}b.*|.*b.{23}c.*)"))
    rng = random.Random(0)
    for _ in range(12):  # each finds some thousands of states; 50,000 are the limit
        constraint = bench.constraint(options, max_tokens=1000).fork()
        _type(constraint, "".join(rng.choice("abc") for _ in range(300)))
        constraint.allowed()


def test_arguments_are_an_object(bench: Bench) -> None:
    tools = (TOOLS[0], Tool(name="f", parameters={"type": "array"}))
    with pytest.raises(InvalidRequest, match="arguments are an 'object'") as caught:
        bench.constraint(Options(tools=tools))
    assert caught.value.field == "options.tools[1].parameters"


@pytest.mark.parametrize("required", ["a", None, [{}], [["a"]]])
def test_what_is_no_schema_is_refused(bench: Bench, required: object) -> None:
    tool = Tool(name="f", parameters={"properties": {"a": {}}, "required": required})
    with pytest.raises(InvalidRequest, match="required") as caught:
        bench.constraint(Options(tools=(tool,)))
    assert caught.value.field == "options.tools[0].parameters"
