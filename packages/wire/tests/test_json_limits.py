"""What a JSON text holds, counted before it is parsed."""

import json
import re
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_wire.json_limits import JsonCounter, JsonLimitExceeded, JsonLimits, check_json

ENDLESS = JsonLimits(**{field.name: 2**62 for field in fields(JsonLimits)})
texts = st.text(st.sampled_from('ab"\\/[]{},:019\n é😀'), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
)


def counted(text: bytes, piece: int) -> dict[str, int]:
    """What is found in pieces of a size, by looking for the highest limit that is exceeded."""
    counter = JsonCounter(ENDLESS)
    for start in range(0, len(text), piece):
        counter.feed(text[start : start + piece])
    return dict(counter.counts)


def held(value: Any, depth: int = 1) -> dict[str, int]:
    """The same, of a parsed value; ``values`` are those inside of others, and empty containers hold one."""
    found = dict.fromkeys(("values", "strings", "containers", "depth"), 0)
    if isinstance(value, str):
        found["strings"] = 1
    elif isinstance(value, list | dict):
        found |= {"values": max(len(value), 1), "containers": 1, "depth": depth}
        found["strings"] += len(value) if isinstance(value, dict) else 0
        for item in value.values() if isinstance(value, dict) else value:
            inner = held(item, depth + 1)
            found = {
                name: max(count, inner[name]) if name == "depth" else count + inner[name]
                for name, count in found.items()
            }
    return found


@given(value=values, ascii_only=st.booleans(), indent=st.none() | st.just(1), piece=st.integers(1, 40))
def test_the_counts_are_exact(value: Any, ascii_only: bool, indent: int | None, piece: int) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    found = counted(text, piece)
    assert held(value) == {name: found[name] for name in held(value)}
    assert found["escapes"] == len(re.findall(rb"\\.", text))
    assert found["non_ascii"] == sum(byte > 127 for byte in text)


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("values", "[1,2,3,4]"),
        ("strings", '["a","b","c","d"]'),
        ("strings", '{"a":1,"b":1,"c":"d"}'),
        ("containers", "[[],{},[]]"),
        ("depth", '[{"a":[[]]}]'),
        ("escapes", r'"\n\"\\"'),
        ("digits", "[12,34]"),
        ("non_ascii", '"éé"'),
    ],
)
def test_one_more_than_the_limit_is_refused(limit: str, text: str) -> None:
    data = text.encode()
    exactly = counted(data, len(data))[limit]
    check_json(data, replace(ENDLESS, **{limit: exactly}))
    with pytest.raises(JsonLimitExceeded, match=f"more than {exactly - 1:,} ") as caught:
        check_json(data, replace(ENDLESS, **{limit: exactly - 1}))
    assert caught.value.what == limit


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_the_top_level_key_that_exceeds_a_limit(piece: int) -> None:
    text = b'{"a":[1,2],"m\\"":{"x":' + b"[" + b"1," * 5000 + b"1]}}"
    counter = JsonCounter(replace(ENDLESS, values=4000))
    pieces = [text[start : start + piece] for start in range(0, len(text), piece)]
    with pytest.raises(JsonLimitExceeded) as caught:
        list(map(counter.feed, pieces))
    assert text[: caught.value.key_end].endswith(b'"m\\""')


@given(text=st.binary(max_size=200), piece=st.integers(1, 50))
def test_any_bytes_can_be_counted(text: bytes, piece: int) -> None:
    counted(text, piece)
