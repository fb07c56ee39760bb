"""Responses: what the document omits, and what our responses add."""

import copy

from deviations.builders import ERRORS, NULL, PATHS, error, ref
from overlay import Deviation, Json, drop, put


def _document_errors(document: Json) -> None:
    for path, methods in document["paths"].items():
        if not path.startswith("/health"):
            for operation in methods.values():
                operation["responses"].update({status: error(status) for status in ERRORS})


def _document_request_id(document: Json) -> None:
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                header = {"required": True, "schema": {"type": "string", "minLength": 1}}
                response.setdefault("headers", {})["x-request-id"] = header


def _chunk_of_completion(document: Json) -> None:
    schemas = document["components"]["schemas"]
    whole = copy.deepcopy(schemas["CreateCompletionResponse"])
    choice = whole["properties"]["choices"]["items"]
    reason = {"anyOf": [choice["properties"]["finish_reason"], NULL]}
    choices = {
        "type": "array",
        "items": {**choice, "properties": {**choice["properties"], "finish_reason": reason}},
    }
    usage = {"anyOf": [ref("CompletionUsage"), NULL]}
    schemas["CreateCompletionStreamResponse"] = {
        **whole,
        "properties": {**whole["properties"], "choices": choices, "usage": usage},
        "required": [name for name in whole["required"] if name != "usage"],
    }


def _require_usage(document: Json) -> None:
    for name in ("CreateChatCompletionResponse", "CreateCompletionResponse"):
        document["components"]["schemas"][name]["required"] += ["usage"]


def _completion_logprobs(document: Json) -> None:
    choice = document["components"]["schemas"]["CreateCompletionResponse"]["properties"]["choices"]["items"]
    logprobs = choice["properties"]["logprobs"]["anyOf"][0]["properties"]
    for name in ("token_logprobs", "top_logprobs"):
        logprobs[name]["items"] = {"anyOf": [logprobs[name]["items"], NULL]}
    logprobs["top_logprobs"] = {"anyOf": [logprobs["top_logprobs"], NULL]}


_COMPLETION_CHOICE = "/components/schemas/CreateCompletionResponse/properties/choices/items/properties"
ANSWERS = [
    Deviation(
        (
            "/components/schemas/CreateChatCompletionResponse/required",
            "/components/schemas/CreateCompletionResponse/required",
        ),
        "Whoever asks is always told what it took; the SDKs' users rely on it.",
        _require_usage,
    ),
    Deviation(
        (f"{_COMPLETION_CHOICE}/logprobs",),
        "The first token of an echoed prompt has no probability: null, as OpenAI's server answers though its "
        "document does not say so. top_logprobs is null where none were asked for.",
        _completion_logprobs,
    ),
    Deviation(
        ("/components/schemas/CreateCompletionStreamResponse",),
        "The document describes no stream of /completions; it is the whole answer's schema, in which "
        "finish_reason and usage may be null.",
        _chunk_of_completion,
    ),
    put(
        "/components/schemas/ChatCompletionMessageToolCallChunk/properties/type/enum",
        ["function", "custom"],
        "Calls of custom tools are streamed as well, with `custom` in place of `function`.",
    ),
    put(
        f"{PATHS}/~1v1~1completions/post/responses/200/content/text~1event-stream",
        {},
        "The document's prose says that /completions streams, its table of responses does not.",
    ),
    drop(
        f"{PATHS}/~1v1~1chat~1completions/post/responses/200/content/text~1event-stream/schema",
        "A stream is many objects and [DONE]; schemathesis would take each event for the chunk. "
        "streams.py validates each chunk against this very schema instead.",
    ),
    Deviation(
        (f"{PATHS}/*/*/responses",),
        "The document knows success alone. These are the errors, in OpenAI's own ErrorResponse.",
        _document_errors,
    ),
    Deviation(
        (f"{PATHS}/*/*/responses/*/headers",),
        "Every answer can be found in the log by its number.",
        _document_request_id,
    ),
]
