"""Every parameter: supported, ignored, or unsupported."""

from typing import Any

import pytest
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from packages.gateway.tests import openai_document
from pydantic import BaseModel

from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.schema.chat_template_options import ChatTemplateKwargs
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.schema.extensions import Extensions
from gemma_gateway.schema.parameter_table import parameter_table
from gemma_gateway.schema.responses import ResponsesRequest
from gemma_gateway.schema.transcription import TranscriptionRequest, TranslationRequest

REQUESTS: dict[str, type[BaseModel]] = {
    "CreateChatCompletionRequest": ChatRequest,
    "CreateCompletionRequest": CompletionRequest,
    "CreateResponse": ResponsesRequest,
    "CreateTranscriptionRequest": TranscriptionRequest,
    "CreateTranslationRequest": TranslationRequest,
}
INSIDE = (
    "tool_choice[allowed_tools].allowed_tools.tools[",
    "messages[user].content[audio_url]",
    "messages[tool].content[",
    "messages[assistant].content[reasoning]",
    "input[user].content[input_audio]",
    "input[system].content[input_audio]",
    "input[developer].content[input_audio]",
    "input[function_call_output].output[input_audio]",
    "input[custom_tool_call_output].output[input_audio]",
    "input[custom_tool_call_output].status",
)
SAMPLING = {
    "top_k",
    "min_p",
    "repetition_penalty",
    "repeat_penalty",
    "do_sample",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "cache_salt",
}
FORMS = {"structured_outputs"} | {
    f"structured_outputs.{form}" for form in ("json", "json_object", "regex", "choice", "grammar")
}
DETAILS = {
    "stream_options.continuous_usage_stats",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "prompt_logprobs",
    "logprob_token_ids",
    "skip_special_tokens",
    *(f"guided_{form}" for form in ("json", "regex", "choice", "grammar", "whitespace_pattern")),
}
OF_RESPONSES = {
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "seed",
    "stop",
    "reasoning_effort",
    "stream_options.include_usage",
    "text.format[json_object].schema",
    "text.format[json_object].value",
    "tools[others]",
    "moderation",
    "prompt_cache_options",
    "image",
    "access_programs",
    "background_options",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_whitespace_pattern",
}
TURNS = {"add_generation_prompt", "continue_final_message"}
TEMPLATE = {*TURNS, "chat_template", "chat_template_kwargs"} | {
    f"chat_template_kwargs.{name}" for name in ChatTemplateKwargs.model_fields
}


def decided_by(path: str, table: dict[str, Any]) -> str | None:
    """The row for a parameter: its own, or that of an object that is not supported."""
    if path in table:
        return path
    while path := path[: max(path.rfind("."), path.rfind("["))].rstrip("."):
        if path in table:
            return path if table[path].treatment != "supported" else None
    return None


@pytest.mark.parametrize("name", REQUESTS)
def test_every_official_parameter_has_a_treatment(name: str) -> None:
    table = parameter_table(REQUESTS[name])
    assert {path for path in openai_document.parameters(name) if decided_by(path, table) is None} == set()


def test_a_parameter_without_a_treatment_is_found() -> None:
    table = parameter_table(ChatRequest)
    paths = ("surprise", "messages[user].surprise", "messages[wizard].role", "tools[function].function.z")
    assert [decided_by(path, table) for path in paths] == [None] * 4
    assert decided_by("audio.voice.id", table) == "audio"
    assert decided_by("messages[assistant].function_call.name", table) == "messages[assistant].function_call"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        (
            "CreateChatCompletionRequest",
            {
                *DETAILS,
                "messages[tool].name",
                "moderation",
                "prompt_cache_options",
                "best_of",
                "echo",
                "documents",
                "response_format[json_object].schema",
                "response_format[json_object].value",
                *TEMPLATE,
            },
        ),
        ("CreateCompletionRequest", {*DETAILS, "reasoning_effort"}),
        ("CreateResponse", OF_RESPONSES),
    ],
)
def test_parameters_that_are_not_in_the_document(name: str, more: set[str]) -> None:
    """Few and known. An unsupported object has one row, and none for its fields."""
    named = openai_document.parameters(name)
    beyond = {
        path
        for path in parameter_table(REQUESTS[name])
        if path not in named and not any(other.startswith(f"{path}.") for other in named)
    }
    inside = {path for path in beyond if path.startswith(INSIDE)}
    extensions = Extensions.model_fields.keys() - {"reasoning_effort", *named}
    assert beyond - inside == SAMPLING | FORMS | extensions | more


@pytest.mark.parametrize(
    ("params", "schema"),
    [
        (completion_create_params.CompletionCreateParamsBase, ChatRequest),
        (response_create_params.ResponseCreateParamsBase, ResponsesRequest),
    ],
)
def test_the_parameters_of_the_sdk_are_known(params: Any, schema: type[BaseModel]) -> None:
    """The SDK is newer than the document."""
    assert params.__annotations__.keys() | {"stream"} <= parameter_table(schema).keys()


def own(schema: type[BaseModel], treatment: str) -> set[str]:
    """The schema's own parameters with this treatment, those of other servers left out."""
    rows = parameter_table(schema).items()
    return {
        path for path, row in rows if path.isidentifier() and row.treatment == treatment
    } - Extensions.model_fields.keys()


@pytest.mark.parametrize(
    ("schema", "ignored", "unsupported"),
    [
        (
            ChatRequest,
            {
                "user",
                "metadata",
                "safety_identifier",
                "prompt_cache_key",
                "prompt_cache_retention",
                "prompt_cache_options",
                "store",
                "verbosity",
            },
            {
                "functions",
                "function_call",
                "modalities",
                "audio",
                "web_search_options",
                "moderation",
                "best_of",
                "echo",
                "documents",
                "chat_template",
                "guided_whitespace_pattern",
            },
        ),
        (CompletionRequest, {"user"}, {"suffix", "guided_whitespace_pattern"}),
        (
            ResponsesRequest,
            {
                "user",
                "max_tool_calls",
                "safety_identifier",
                "prompt_cache_key",
                "prompt_cache_retention",
                "prompt_cache_options",
                "image",
                "access_programs",
                "background_options",
            },
            {
                "conversation",
                "prompt",
                "context_management",
                "moderation",
                "guided_whitespace_pattern",
            },
        ),
    ],
)
def test_treatments(schema: type[BaseModel], ignored: set[str], unsupported: set[str]) -> None:
    assert own(schema, "ignored") == ignored
    assert own(schema, "unsupported") == unsupported
    assert all(row.note for row in parameter_table(schema).values() if row.treatment == "ignored")


def test_extensions_has_no_supported_parameters() -> None:
    """Parameters in ``Extensions`` are ignored or unsupported; supported ones are in other classes."""
    assert {row.treatment for row in parameter_table(Extensions).values()} == {"ignored", "unsupported"}
