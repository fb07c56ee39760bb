"""Every number that the grammar allows is within the bounds of the schema, as a client parses it."""

import itertools
import json
import math
from typing import Any

import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_model.json_schema.errors import SchemaError
from gemma_model.json_schema.rewrite import rewrite
from gemma_model.json_schema.validate import is_valid
from gemma_model.structured_output.grammar_builder import LIMITS, byte_tokenizer, json_entry

TOKENIZER = byte_tokenizer()
TEXTS = """
0 -0 0.0 -0.0 0e5 -0e5 1e-400 -1e-400 0.5 -0.5 0.50 1 -1 1.0 10 2 -2 3 9 7 5e-1 5E-1 0.05e1 1e0 1e400 -1e400
0.49999999999999999999 0.50000000000000000001 -0.49999999999999999999 -0.50000000000000000001 0.1 0.3 0.25
1.00000000000000000001 0.99999999999999999999 9007199254740993 -0.25 1.5 -1.5 100 -100 0.000001 99.5 12.25
-0.000001
""".split()  # noqa: SIM905
TEXTS += ["0." + "0" * 400 + "1", "-0." + "0" * 400 + "1", "1" + "0" * 30]
BOUNDS = (None, -100, -1.5, -1, -0.5, -1e-9, 0, 1e-9, 0.5, 1, 2.5, 100)
KEYWORDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def _accepts(schema: Any, text: str) -> bool:
    grammar = json.dumps({"grammars": [json_entry(schema)]})
    matcher = llguidance.LLMatcher(TOKENIZER, grammar, log_level=0, limits=LIMITS)
    return bool(matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting())


def _check(schema: dict[str, Any], texts: list[str]) -> list[str]:
    """The texts that the grammar allows; each of them must be valid for the schema."""
    try:
        rewritten = rewrite(schema, True, lambda _: "").schema
    except SchemaError:
        return []
    allowed = [text for text in texts if _accepts(rewritten, text)]
    invalid = [text for text in allowed if not is_valid(schema, text)]
    assert not invalid, (schema, rewritten, invalid)
    return allowed


@pytest.mark.parametrize("type_name", ["number", "integer"])
@pytest.mark.parametrize(("low", "high"), [*itertools.product(KEYWORDS[:2], KEYWORDS[2:])])
def test_all_pairs_of_bounds_are_enforced(type_name: str, low: str, high: str) -> None:
    for below, above in itertools.product(BOUNDS, BOUNDS):
        bounds = {keyword: bound for keyword, bound in ((low, below), (high, above)) if bound is not None}
        _check({"type": type_name, **bounds}, TEXTS)


@settings(max_examples=150, deadline=None)
@given(
    type_name=st.sampled_from(["number", "integer"]),
    bounds=st.dictionaries(
        st.sampled_from(KEYWORDS),
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-(10**20), 10**20),
            st.floats(-2, 2),
            st.booleans(),
        ),
        max_size=4,
    ),
    multiple=st.sampled_from([None, None, 1, 2, 0.5, 0.25, 0.1, 0.01, 3, 7, 1e-7]),
)
def test_any_combination_of_bounds_is_enforced(
    type_name: str, bounds: dict[str, Any], multiple: float | None
) -> None:
    nearby: list[str] = []
    for bound in bounds.values():
        if not isinstance(bound, bool):
            close = [float(bound), math.nextafter(bound, math.inf), math.nextafter(bound, -math.inf)]
            nearby += [f"{value:.25f}".rstrip("0") for value in close if abs(value) < 1e22]
            nearby += [
                repr(bound),
                f"{bound}000000000000000000001" if "." in repr(bound) else f"{bound}.0000000000001",
            ]
    schema = {"type": type_name, **bounds} | ({} if multiple is None else {"multipleOf": multiple})
    _check(schema, [*TEXTS, *nearby])


@pytest.mark.parametrize(
    ("schema", "valid"),
    [
        ({"exclusiveMinimum": 0, "maximum": 0.5}, {"0.5", "0.1", "0.25", "0.000001"}),
        ({"minimum": -0.5, "exclusiveMaximum": 0}, {"-0.5", "-0.25", "-0.000001"}),
        ({"minimum": 0}, {"0", "0.0", "0.5", "1", "100", "9007199254740993"}),
        ({"maximum": 0}, {"0", "-0.5", "-100"}),
        ({"exclusiveMinimum": -1, "exclusiveMaximum": 1}, {"0", "0.5", "-0.5", "0.3"}),
        ({"minimum": 0, "maximum": 1.7976931348623157e308}, {"0", "0.5", "100"}),
        ({"minimum": 0.25, "multipleOf": 0.25, "maximum": 100}, {"0.25", "1", "12.25", "100"}),
    ],
)
def test_values_inside_the_bounds_are_allowed(schema: dict[str, Any], valid: set[str]) -> None:
    assert valid <= set(_check({"type": "number", **schema}, TEXTS))


@pytest.mark.parametrize("schema", [{"const": 2**53 + 1}, {"enum": [2**63, "a"]}, {"const": 1e300}])
def test_large_constants_are_enforced_exactly(schema: dict[str, Any]) -> None:
    _check(schema, [str(2**53), str(2**53 + 1), str(2**63), str(2**63 - 1), '"a"', "1" + "0" * 300])


@pytest.mark.parametrize("bound", [2**53 + 1, 2**63, -(2**63) - 1, 10**30, 1e17, 1e18 + 1000])
@pytest.mark.parametrize("keyword", KEYWORDS)
def test_bounds_that_are_large_integers_are_enforced(keyword: str, bound: int) -> None:
    integer = int(bound)
    texts = [str(integer + offset) for offset in (-1025, -1024, -2, -1, 0, 1, 2, 1024, 1025)]
    for type_name in ("integer", "number"):
        _check({"type": type_name, keyword: bound}, [*texts, *TEXTS])
