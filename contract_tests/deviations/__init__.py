"""Every difference between OpenAI's document and what this server promises, with its reason.

The suite checks that each one is still needed, that no difference is missing here, and that the server really
behaves so: ``shown`` are requests about which the two documents disagree.
"""

from deviations.accepted import ACCEPTED, GENEROUS, HISTORY
from deviations.bounds import BOUNDS
from deviations.builders import ref
from deviations.extensions import ENDPOINTS, EXTRAS, MODELS
from deviations.responses import ANSWERS
from deviations.responses_api import RESPONSE_EVENTS, RESPONSES_API, RESPONSES_FORM
from deviations.unsupported import REFUSED
from overlay import Deviation, Json, closed, flat

_FORM = [
    flat("CreateModelResponseProperties", "Part of the next."),
    flat(
        "CreateChatCompletionRequest",
        "The same object without allOf: objects below are closed, which parts of an allOf cannot be. "
        "top_logprobs is in three parts that disagree about null; the last one, which allows it, counts.",
    ),
]


def _responses(document: Json) -> Json:
    streamed = (
        "CreateChatCompletionStreamResponse",
        "CreateCompletionStreamResponse",
        *RESPONSE_EVENTS,
    )
    operations = (each for methods in document["paths"].values() for each in methods.values())
    return [*(operation["responses"] for operation in operations), *(ref(name) for name in streamed)]


def _padding(document: Json) -> None:
    schemas = document["components"]["schemas"]
    for name in ("CreateChatCompletionStreamResponse", "CreateCompletionStreamResponse"):
        schemas[name]["properties"]["obfuscation"] = {"type": "string"}


_STRICT = [
    Deviation(
        (
            "/components/schemas/CreateChatCompletionStreamResponse/properties/obfuscation",
            "/components/schemas/CreateCompletionStreamResponse",
        ),
        "What stream_options.include_obfuscation adds, by the prose; the schema forgets it.",
        _padding,
    ),
    GENEROUS,
    closed(_responses, "An answer holds nothing that its reader could not look up."),
]

DEVIATIONS: list[Deviation] = [
    *_FORM,
    *RESPONSES_FORM,
    *ENDPOINTS,
    *ANSWERS,
    *RESPONSES_API,
    *MODELS,
    *EXTRAS,
    *REFUSED,
    *BOUNDS,
    *HISTORY,
    *ACCEPTED,
    *_STRICT,
]

UNSAID: dict[str, str] = {
    r"messages\[\d+\]\.content\[\d+\]\.(image_url|input_audio|audio_url|file)\b.*": "it must be a file",
    r"messages\[\d+\]\.(content|tool_calls|tool_call_id)": "calls and results must fit each other",
    r"messages|input": "it must fit the context",
    r"max_output_tokens|structured_outputs|text\.format": "they must fit each other, and the context",
    r"(tools\[\d+\]\.function\.parameters|response_format\.json_schema\.schema|structured_outputs)\b.*": (
        "it must be a schema, expression or grammar, and one that can be honoured"
    ),
    r"tools\[\d+\]\.custom\.format\b.*": "it must be an expression or grammar, and one that can be honoured",
    r"input\[\d+\]\.type": "schemathesis counts {} as valid where only a word is",
    r"tools(\[\d+\]\.(function|custom)\.name)?": "two of one name",
    r"tool_choice\b.*": "it must name one of the tools",
    r"ignore_eos": "what has a form has an end",
    r"stream_options": "without a stream there is nothing to tell about it",
    r"top_logprobs": "without logprobs there is nothing to tell",
    r"min_tokens|max_tokens|max_completion_tokens": "they must fit each other, and the context",
    r"repeat_penalty": "another name of repetition_penalty, so both must say the same",
    r"best_of": "it must fit n, and is not streamed",
    r"n": "more than run at one time",
    r"prompt(\[\d+\])*": "it must fit the context, and be of the vocabulary",
    r"tokens(\[\d+\])*|stop_token_ids(\[\d+\])*|logit_bias\b.*": "they must be of the vocabulary",
}
"""Reasons to refuse requests that are valid for the schemas: parameters → reasons."""
