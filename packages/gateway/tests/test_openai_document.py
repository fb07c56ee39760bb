"""The helpers for OpenAI's document find invalid responses and new parameters."""

import copy
from typing import Any

import pytest
from jsonschema import ValidationError
from packages.gateway.tests import openai_document

CHUNK: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": None}, "finish_reason": None, "logprobs": None}],
    "usage": None,
}


def test_a_valid_response_passes() -> None:
    openai_document.assert_valid(CHUNK, "CreateChatCompletionStreamResponse")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((), {}),
        (("object",), "chat.completion"),
        (("created",), None),
        (("usage",), {"prompt_tokens": 1}),
        (("choices", 0, "index"), None),
        (("choices", 0, "finish_reason"), "done"),
        (("choices", 0, "delta", "content"), 5),
        (("choices", 0, "delta", "tool_calls"), [{}]),
        (("choices", 0, "logprobs"), {"content": []}),
    ],
)
def test_an_invalid_response_is_found(place: tuple[str | int, ...], value: Any) -> None:
    broken: Any = {"whole": copy.deepcopy(CHUNK)}
    *way, last = ("whole", *place)
    inner = broken
    for step in way:
        inner = inner[step]
    inner[last] = value
    with pytest.raises(ValidationError):
        openai_document.assert_valid(broken["whole"], "CreateChatCompletionStreamResponse")


def test_parameters_are_found_in_every_branch() -> None:
    found = openai_document.parameters("CreateChatCompletionRequest")
    assert {
        "stop",
        "stream_options.include_usage",
        "messages[developer].content[text].text",
        "messages[user].content[file].file.file_id",
        "response_format[json_schema].json_schema.strict",
        "tool_choice[allowed_tools].allowed_tools.mode",
        "tools[custom].custom.format[grammar].grammar.syntax",
        "web_search_options.user_location.approximate.city",
        "audio.voice.id",
    } <= found
    assert not {path for path in found if path.startswith(("metadata.", "logit_bias."))}
