"""The end of the prompt, and other names of structured outputs."""

from typing import Any

import httpx
import pytest
from packages.gateway.tests.completion_helpers import ask, post_completion
from packages.gateway.tests.conftest import FakeEngine, asked, assert_error, chat, post

from gemma_wire import (
    ChoiceGrammar,
    Chunk,
    InvalidRequest,
    JsonGrammar,
    LarkGrammar,
    RegexGrammar,
    Usage,
)


@pytest.fixture(autouse=True)
def script(engine: FakeEngine) -> None:
    """Responds to requests for one choice and for two."""
    usage = Usage(prompt_tokens=3, completion_tokens=2)
    engine.script = [
        Chunk(index=1, text="b", finish_reason="stop"),
        Chunk(text="a", finish_reason="stop", usage=usage),
    ]


@pytest.mark.parametrize(("value", "skips"), [(None, True), (True, True), (False, False)])
async def test_special_tokens(
    client: httpx.AsyncClient, engine: FakeEngine, value: bool | None, skips: bool
) -> None:
    assert (
        await asked(client, engine, chat(skip_special_tokens=value, n=2))
    ).options.skip_special_tokens is skips
    await post_completion(client, ask(skip_special_tokens=value, n=2))
    assert engine.asked[-1].options.skip_special_tokens is skips


COUNT = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one two"}]


@pytest.mark.parametrize(
    ("fields", "begins", "continues"),
    [
        ({}, True, False),
        ({"add_generation_prompt": None, "continue_final_message": False}, True, False),
        ({"add_generation_prompt": False}, False, False),
        ({"continue_final_message": True}, False, True),
        ({"continue_final_message": True, "add_generation_prompt": False}, False, True),
        ({"chat_template_kwargs": {"add_generation_prompt": False}}, False, False),
        ({"chat_template_kwargs": {"continue_final_message": True}}, False, True),
        (
            {"chat_template_kwargs": {"enable_thinking": True, "thinking": False, "x": None, "y": []}},
            True,
            False,
        ),
        ({"chat_template_kwargs": {}}, True, False),
    ],
)
async def test_generation_prompt_and_continued_messages(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, Any], begins: bool, continues: bool
) -> None:
    options = (await asked(client, engine, chat(n=2) | {"messages": COUNT} | fields)).options
    assert (options.add_generation_prompt, options.continue_final_message) == (begins, continues)
    response = await client.post("/tokenize", json={"messages": COUNT} | fields)
    assert response.status_code == 200, response.text
    options = engine.asked[-1].options
    assert (options.add_generation_prompt, options.continue_final_message) == (begins, continues)


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize"])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        (
            {"continue_final_message": True, "chat_template_kwargs": {"add_generation_prompt": True}},
            "continue_final_message",
        ),
        ({"continue_final_message": True, "messages": COUNT[:1]}, "continue_final_message"),
        (
            {
                "continue_final_message": True,
                "messages": [*COUNT[:1], {"role": "assistant", "content": "x", "tool_calls": [CALL]}],
            },
            "messages[1].tool_calls",
        ),
        (
            {"add_generation_prompt": True, "chat_template_kwargs": {"add_generation_prompt": False}},
            "chat_template_kwargs.add_generation_prompt",
        ),
        ({"chat_template_kwargs": {"persona": "pirate"}}, "chat_template_kwargs.persona"),
        ({"chat_template_kwargs": 5}, "chat_template_kwargs"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
    ],
)
async def test_conflicting_parameters_are_refused_by_name(
    client: httpx.AsyncClient, path: str, fields: dict[str, Any], param: str
) -> None:
    body = {"model": "gemma3n", "messages": COUNT} | fields
    error = (await client.post(path, json=body)).json()["error"]
    assert error["param"] == param


async def test_an_empty_last_message_can_be_continued(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    messages = [COUNT[0], {"role": "assistant", "content": ""}]
    request = await asked(client, engine, chat(n=2) | {"messages": messages, "continue_final_message": True})
    assert request.options.continue_final_message


@pytest.mark.parametrize(
    ("fields", "grammar", "param"),
    [
        ({"guided_json": {"type": "string"}}, JsonGrammar(json_schema={"type": "string"}), "guided_json"),
        ({"guided_json": '{"type": "string"}'}, JsonGrammar(json_schema={"type": "string"}), "guided_json"),
        ({"guided_regex": "a+"}, RegexGrammar(pattern="a+"), "guided_regex"),
        ({"guided_choice": ["x", "y"]}, ChoiceGrammar(choices=("x", "y")), "guided_choice"),
        ({"guided_grammar": "start: A"}, LarkGrammar(text="start: A"), "guided_grammar"),
        ({"guided_json": None, "guided_regex": "", "guided_choice": [], "guided_grammar": ""}, None, ""),
    ],
)
async def test_older_names_of_structured_outputs(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, Any], grammar: Any, param: str
) -> None:
    assert (await asked(client, engine, chat(n=2, **fields))).options.grammar == grammar
    assert (await post_completion(client, ask(n=2, **fields))).status_code == 200
    assert engine.asked[-1].options.grammar == grammar
    if param:
        engine.script = [InvalidRequest("is not supported", "options.grammar")]
        assert_error(await post(client, chat(**fields)), 400, param, "invalid_value")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"guided_json": "{"}, "guided_json", "invalid_json"),
        ({"guided_json": "5"}, "guided_json", "invalid_type"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "invalid_parameter_combination"),
        (
            {"guided_regex": "a", "structured_outputs": {"json": True}},
            "guided_regex",
            "invalid_parameter_combination",
        ),
        (
            {"guided_regex": "a", "response_format": {"type": "json_object"}},
            "guided_regex",
            "invalid_parameter_combination",
        ),
        ({"guided_whitespace_pattern": " *"}, "guided_whitespace_pattern", "unsupported_parameter"),
    ],
)
async def test_conflicting_structured_outputs(
    client: httpx.AsyncClient, fields: dict[str, Any], param: str, code: str
) -> None:
    assert_error(await post(client, chat(**fields)), 400, param, code)


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({}, {"type": "object"}),
        ({"schema": {}}, {"type": "object"}),
        ({"schema": None, "value": None}, {"type": "object"}),
        ({"schema": {"type": "array"}}, {"type": "array"}),
        ({"value": {"type": "array"}}, {"type": "array"}),
    ],
)
async def test_a_json_object_may_have_a_schema(
    client: httpx.AsyncClient, engine: FakeEngine, form: dict[str, Any], schema: dict[str, Any]
) -> None:
    request = await asked(client, engine, chat(n=2, response_format={"type": "json_object"} | form))
    assert request.options.grammar == JsonGrammar(json_schema=schema)
