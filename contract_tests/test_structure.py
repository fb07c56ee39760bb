"""Structured output: it is valid even with random weights at a temperature of 1.5."""

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from scenarios import WEATHER, valid
from schemas import COLOUR, DIGIT, SCHEMAS
from server import LONG, Api

CALLS = 200 if LONG else 8
WILD: Any = {"temperature": 1.5, "top_p": 1, "top_k": 0, "max_tokens": 600}
NESTED: Any = {
    "type": "function",
    "function": {
        "name": "paint",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "what": {"enum": ["house", "boat"]},
                "coats": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"colour": COLOUR, "litres": DIGIT},
                        "required": ["colour", "litres"],
                        "additionalProperties": False,
                    },
                    "minItems": 1,
                    "maxItems": 2,
                },
            },
            "required": ["what", "coats"],
            "additionalProperties": False,
        },
    },
}
TOOLS = {tool["function"]["name"]: tool for tool in (WEATHER, NESTED)}
NAMED = {"type": "function", "function": {"name": "paint"}}


def _calls(answer: Any) -> list[Any]:
    (choice,) = answer["choices"]
    calls: list[Any] = choice["message"].get("tool_calls") or []
    assert choice["finish_reason"] == ("tool_calls" if calls else "stop"), choice
    for call in calls:
        function = call["function"]
        assert valid(function["arguments"], TOOLS[function["name"]]["function"]["parameters"]), function
    return calls


@pytest.mark.timeout(1800)
def test_required_calls_are_valid(api: Api) -> None:
    names = set()
    for seed in range(CALLS):
        answer = api.chat(tools=[*TOOLS.values()], tool_choice="required", seed=seed, **WILD).json
        calls = _calls(answer)
        assert calls
        names |= {call["function"]["name"] for call in calls}
    assert names <= set(TOOLS)


@pytest.mark.timeout(1800)
def test_named_calls_are_valid(api: Api) -> None:
    for seed in range(CALLS):
        (call,) = _calls(api.chat(tools=[*TOOLS.values()], tool_choice=NAMED, seed=seed, **WILD).json)
        assert call["function"]["name"] == "paint"


def test_only_allowed_tools_are_called(api: Api) -> None:
    allowed = {"mode": "required", "tools": [NAMED]}
    for seed in range(3):
        choice = {"type": "allowed_tools", "allowed_tools": allowed}
        calls = _calls(api.chat(tools=[*TOOLS.values()], tool_choice=choice, seed=seed, **WILD).json)
        assert {call["function"]["name"] for call in calls} == {"paint"}


def test_no_parallel_calls(api: Api) -> None:
    for seed in range(4):
        options: Any = {"tools": [*TOOLS.values()], "tool_choice": "required", "parallel_tool_calls": False}
        assert len(_calls(api.chat(**options, seed=seed, **WILD).json)) == 1


def test_call_ids_are_unique(api: Api) -> None:
    ids = [
        call["id"]
        for seed in range(3)
        for call in _calls(api.chat(tools=[WEATHER], tool_choice="required", seed=seed, **WILD).json)
    ]
    assert len(set(ids)) == len(ids)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCHEMAS)
def test_json_schema(api: Api, name: str) -> None:
    """Every response is valid, or the request was refused before generation, naming the keyword."""
    schema = SCHEMAS[name]
    Draft202012Validator.check_schema(schema)
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}
    body: Any = {"messages": [{"role": "user", "content": "Go"}], "response_format": form, **WILD}
    answer = api.http.post("/v1/chat/completions", json={"model": api.model, "seed": 0, **body})
    if answer.status_code == 400:
        error = answer.json()["error"]
        assert error["param"].startswith("response_format.json_schema.schema"), error
        assert any(
            repr(word) in error["message"] or word in error["message"] for word in _keywords(schema)
        ), error
        return
    for seed in range(20 if LONG else 2):
        choice = api.chat(**body, seed=seed).json["choices"][0]
        assert choice["finish_reason"] == "stop", choice
        assert valid(choice["message"]["content"], schema), choice["message"]["content"]


def _keywords(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        return {*schema, *(word for each in schema.values() for word in _keywords(each))}
    return {word for each in schema for word in _keywords(each)} if isinstance(schema, list) else set()


def test_forty_schemas() -> None:
    assert len(SCHEMAS) >= 40


def test_json_object(api: Api) -> None:
    # A model of random weights may write a long object; what there is of it is the beginning of one.
    choice = api.chat(response_format={"type": "json_object"}, **WILD).json["choices"][0]
    text = choice["message"]["content"]
    assert text.lstrip().startswith("{")
    assert choice["finish_reason"] == "length" or valid(text, {"type": "object"})


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"choice": ["yes", "no", "Kuala Lumpur"]}, r"yes|no|Kuala Lumpur"),
        ({"regex": r"[a-c]{3}-[0-9]{2}"}, r"[a-c]{3}-[0-9]{2}"),
        ({"grammar": 'start: "a" ("b" | "c")+ "d"'}, r"a[bc]+d"),
        ({"json": DIGIT}, r"\s*[0-9]\s*"),
    ],
)
def test_structured_outputs(api: Api, form: Any, expected: str) -> None:
    for seed in range(3):
        choice = api.chat(structured_outputs=form, seed=seed, **WILD).json["choices"][0]
        assert choice["finish_reason"] == "stop", choice
        assert re.fullmatch(expected, choice["message"]["content"]), choice


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "nothing"}}},
        {"$ref": "#/$defs/missing"},
        {"type": "string", "pattern": "(["},
        {"type": "array", "items": {"$dynamicRef": "#x"}},
    ],
)
def test_an_invalid_schema_is_refused(api: Api, schema: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    error = api.chat(400, response_format=form).json["error"]
    assert error["param"].startswith("response_format.json_schema.schema")
