"""Answers keep to their grammar, however random the model; what cannot be honoured is refused."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_model.landing import ids_of
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

from .schemas import REFUSED, SCHEMAS
from .walks import TOOLS, VOCABULARY, Bench, bench_of, type_out, valid


@pytest.fixture(scope="module")
def bench(tiny: Path) -> Iterator[Bench]:
    with bench_of(tiny) as bench:
        yield bench


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_json_fits_its_schema_however_random_the_model(bench: Bench, schema: dict[str, Any]) -> None:
    options = Options(grammar=JsonGrammar(json_schema=schema))
    for seed in range(5):
        walk = bench.walk(options, seed, max_tokens=400)
        assert walk.ended
        assert valid(walk.text, schema), walk.text


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
    assert all(walk.ended and valid(walk.text, schema) for walk in walks)
    assert any(walk.cut_short for walk in walks)
    assert all(walk.tokens > max_tokens - 40 for walk in walks if walk.cut_short)


def test_forks_go_their_own_ways(bench: Bench) -> None:
    one = bench.constraint(Options(grammar=ChoiceGrammar(choices=("ab", "ac"))))
    type_out(one, "a")
    two = one.fork()
    type_out(one, "b")
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
        type_out(constraint, "".join(rng.choice("abc") for _ in range(300)))
        constraint.allowed()
