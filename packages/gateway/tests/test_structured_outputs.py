"""Response formats and grammars: what is passed on, and what is refused."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, assert_error, chat, post

import gemma_wire as wire

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ANY_OBJECT = wire.JsonGrammar(json_schema={"type": "object"})
FORMS: list[tuple[dict[str, Any], wire.Grammar | None, str]] = [
    ({"response_format": {"type": "text"}}, None, "grammar"),
    ({"response_format": {"type": "json_object"}}, ANY_OBJECT, "response_format"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
        wire.JsonGrammar(json_schema=SCHEMA),
        "response_format.json_schema.schema",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": None}}},
        wire.JsonGrammar(json_schema={}),
        "response_format.json_schema.schema",
    ),
    (
        {"structured_outputs": {"json": SCHEMA}},
        wire.JsonGrammar(json_schema=SCHEMA),
        "structured_outputs.json",
    ),
    ({"structured_outputs": {"json": True}}, wire.JsonGrammar(json_schema=True), "structured_outputs.json"),
    ({"structured_outputs": {"json_object": True}}, ANY_OBJECT, "structured_outputs.json_object"),
    ({"structured_outputs": {"regex": "a+"}}, wire.RegexGrammar(pattern="a+"), "structured_outputs.regex"),
    (
        {"structured_outputs": {"choice": ["a", "b"]}},
        wire.ChoiceGrammar(choices=("a", "b")),
        "structured_outputs.choice",
    ),
    (
        {"structured_outputs": {"grammar": 'start: "a"'}},
        wire.LarkGrammar(text='start: "a"'),
        "structured_outputs.grammar",
    ),
]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(("form", "grammar", "param"), FORMS)
async def test_forms(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    form: dict[str, Any],
    grammar: wire.Grammar | None,
    param: str,
    path: str,
) -> None:
    """The form reaches the model; the model's error reaches the client, with the client's parameter."""
    if path == "/v1/completions" and "response_format" in form:
        return  # not a parameter of plain completions
    body = chat(**form) if "chat" in path else {"model": "gemma3n", "prompt": "x", **form}
    engine.script = [wire.InvalidRequest("the keyword 'not' is not supported", "options.grammar")]
    assert_error(await client.post(path, json=body), 400, param, "invalid_value")
    assert engine.asked[0].options.grammar == grammar
    engine.script = [wire.InvalidRequest("no", "options.grammar.json_schema.properties.a")]
    response = await client.post(path, json=body)
    inner = "grammar.json_schema" if grammar is None else param
    assert_error(response, 400, f"{inner}.properties.a", "invalid_value")


@pytest.mark.parametrize(
    ("form", "param", "code"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.name",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
            "invalid_value",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": 5}}},
            "response_format.json_schema.schema",
            "invalid_type",
        ),
        (
            {"structured_outputs": {"regex": "a", "choice": ["a"]}},
            "structured_outputs",
            "invalid_parameter_combination",
        ),
        ({"structured_outputs": {"choice": [""]}}, "structured_outputs.choice[0]", "empty_string"),
        ({"structured_outputs": {"json": 5}}, "structured_outputs.json", "invalid_type"),
        ({"structured_outputs": {"regex": ""}}, "structured_outputs.regex", "empty_string"),
        (
            {"structured_outputs": {"structural_tag": "x"}},
            "structured_outputs.structural_tag",
            "unknown_parameter",
        ),
        (
            {"structured_outputs": {"json_object": True}, "response_format": {"type": "json_object"}},
            "structured_outputs",
            "invalid_parameter_combination",
        ),
    ],
)
async def test_refused_forms(client: httpx.AsyncClient, form: dict[str, Any], param: str, code: str) -> None:
    assert_error(await post(client, chat(**form)), 400, param, code)
