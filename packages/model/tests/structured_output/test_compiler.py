"""Random outputs are valid for their grammar; unsupported grammars are refused."""

import json
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_model.structured_output.compiler import GrammarTooComplex
from gemma_wire import (
    ChoiceGrammar,
    Grammar,
    InvalidRequest,
    JsonGrammar,
    LarkGrammar,
    Options,
    RegexGrammar,
    Tool,
)

from .schemas import INVALID, SCHEMAS, UNENFORCEABLE
from .walks import TOOLS, VOCABULARY, Bench, bench_of, ids_of, type_out, valid


@pytest.fixture(scope="module")
def bench(tiny: Path) -> Iterator[Bench]:
    with bench_of(tiny) as bench:
        yield bench


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_random_json_is_valid_for_its_schema(bench: Bench, schema: dict[str, Any], strict: bool) -> None:
    options = Options(grammar=JsonGrammar(json_schema=schema, strict=strict))
    for seed in range(5):
        walk = bench.walk(options, seed, max_tokens=400)
        assert valid(walk.text, schema), walk.text
        assert walk.unenforced == ()
        assert walk.fits is None


@pytest.mark.parametrize(("keyword", "schema"), UNENFORCEABLE.items())
@pytest.mark.parametrize("as_tool", [True, False])
def test_a_strict_schema_that_cannot_be_enforced_is_refused_by_keyword_and_path(
    bench: Bench, keyword: str, schema: dict[str, Any], as_tool: bool
) -> None:
    inner = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    tool = Tool(name="f", parameters=inner, strict=True)
    json_grammar = JsonGrammar(json_schema=inner, strict=True)
    options = Options(tools=(TOOLS[0], tool)) if as_tool else Options(grammar=json_grammar)
    with pytest.raises(InvalidRequest, match=re.escape(f"{keyword!r} at $.properties.a")) as caught:
        bench.constraint(options)
    assert caught.value.field == ("options.tools[1].parameters" if as_tool else "options.grammar")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("keyword", "schema"), UNENFORCEABLE.items())
@pytest.mark.parametrize("tool_choice", ["auto", "required", None])
def test_unenforced_keywords_are_listed_and_validated(
    bench: Bench, keyword: str, schema: dict[str, Any], tool_choice: Any
) -> None:
    inner = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    tools = (Tool(name="f", parameters=inner),)
    options = (
        Options(tools=tools, tool_choice=tool_choice)
        if tool_choice
        else Options(grammar=JsonGrammar(json_schema=inner))
    )
    for seed in range(10):
        walk = bench.walk(options, seed)
        assert keyword in walk.unenforced
        if tool_choice is None and keyword != "$ref":
            assert walk.fits == valid(walk.text, inner)
        assert tool_choice != "required" or walk.calls


@pytest.mark.parametrize(("reason", "schema"), INVALID.items())
@pytest.mark.parametrize("strict", [True, False])
def test_invalid_and_unsatisfiable_schemas_are_refused(
    bench: Bench, reason: str, schema: Any, strict: bool
) -> None:
    inner = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    with pytest.raises(InvalidRequest, match=re.escape(reason)) as caught:
        bench.constraint(Options(grammar=JsonGrammar(json_schema=inner, strict=strict)))
    message = caught.value.message
    assert not re.search("NoExtension|coerce|x-guidance|lenient|Unimplemented", message), message


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
def test_other_grammars_are_enforced(bench: Bench, grammar: Grammar, pattern: str) -> None:
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
        JsonGrammar(json_schema={"$ref": "#"}),
        JsonGrammar(json_schema={"$ref": "#/$defs/missing"}),
        JsonGrammar(json_schema={"items": {"$dynamicRef": "#missing"}}),
        JsonGrammar(json_schema={"type": "string", "pattern": "(["}),
        JsonGrammar(
            json_schema={
                "allOf": [{"$ref": "#/$defs/a"}],
                "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#"}},
            }
        ),
        LarkGrammar(
            text="start: a\n" + "".join(f"a{i}: a{i + 1}\n" for i in range(3000)) + 'a3000: "b"\na: a0'
        ),
    ],
)
def test_an_invalid_grammar_is_refused(bench: Bench, grammar: Grammar) -> None:
    with pytest.raises(InvalidRequest, match=r"is not supported: .") as caught:
        bench.constraint(Options(grammar=grammar))
    assert caught.value.field == "options.grammar"
    assert "NoExtension" not in caught.value.message


@pytest.mark.parametrize(
    "grammar",
    [
        LarkGrammar(text="start: " + '"a"? ' * 3000),
        LarkGrammar(text="start: " + "/[ab]{1,40}/? " * 3000),
        RegexGrammar(pattern="((a{1,500}){1,500}){1,500}"),
    ],
)
def test_complex_grammars_are_enforced_or_refused(bench: Bench, grammar: Grammar) -> None:
    with suppress(InvalidRequest, GrammarTooComplex):
        assert re.fullmatch("[ab]*", bench.walk(Options(grammar=grammar), 0, 30).text)


def test_the_error_of_a_large_grammar_names_the_limit(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="the limit is 200,000"):
        bench.constraint(Options(grammar=JsonGrammar(json_schema={"title": "x" * 300_000})))


LARGE: dict[str, Any] = {
    "many optional properties": {
        "type": "object",
        "properties": {f"p{i}": {"type": "integer"} for i in range(2000)},
    },
    "many constants": {"enum": [f"value {i}" for i in range(10_000)]},
    "a large constant": {"const": "x" * 60_000},
    "deep": json.loads('{"type":"array","items":' * 300 + "{}" + "}" * 300),
    "long strings": {"type": "string", "maxLength": 65_535},
    "long arrays": {"type": "array", "items": {"type": "string"}, "maxItems": 100_000},
}


TOO_COMPLEX = {
    ("many optional properties", True): "it is too complex to be enforced",
    ("deep", True): ".",
    ("deep", False): ".",
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("name", "schema"), LARGE.items())
def test_large_schemas_work_or_are_refused(bench: Bench, name: str, schema: Any, strict: bool) -> None:
    options = Options(grammar=JsonGrammar(json_schema=schema, strict=strict))
    if reason := TOO_COMPLEX.get((name, strict)):
        with pytest.raises(InvalidRequest, match=f"is not supported: {reason}"):
            bench.walk(options, 0, 60)
    else:
        assert bench.walk(options, 0, 60).fits is not False


def test_forks_are_independent(bench: Bench) -> None:
    one = bench.constraint(Options(grammar=ChoiceGrammar(choices=("ab", "ac"))))
    type_out(one, "a")
    two = one.fork()
    type_out(one, "b")
    assert {bench.table[i] for i in ids_of(one.allowed())} == {b""}
    assert {bench.table[i] for i in ids_of(two.allowed())} == {b"b", b"c"}


def test_bitmasks_have_a_bit_for_each_token_of_the_model(bench: Bench) -> None:
    mask = bench.constraint(Options(grammar=RegexGrammar(pattern="(?s:.*)"))).allowed()
    assert mask.dtype == np.int32
    assert mask.shape == (-(-VOCABULARY // 32),)


def test_a_grammar_is_compiled_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(grammar=RegexGrammar(pattern="once"))
    bench.constraint(options)
    monkeypatch.setattr(
        bench.grammars, "_build_in_sandbox", lambda content, options: pytest.fail("compiled again")
    )
    bench.constraint(options)


def test_many_requests_do_not_exhaust_the_states_of_a_grammar(bench: Bench) -> None:
    options = Options(grammar=RegexGrammar(pattern="(.*a.{18}b.*|.*b.{23}c.*)"))
    rng = random.Random(0)
    for _ in range(12):  # each adds some thousands of lexer states; the limit is 50,000
        constraint = bench.constraint(options, max_tokens=1000).fork()
        type_out(constraint, "".join(rng.choice("abc") for _ in range(300)))
        constraint.allowed()
