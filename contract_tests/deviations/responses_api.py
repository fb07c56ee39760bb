"""The Responses API: what the document omits, and what our responses add."""

from deviations.builders import HI, PATHS, or_null
from overlay import Json, Shown, flat, put

RESPONSES = "/v1/responses"
RESPONSE_EVENTS = (
    "ResponseCreatedEvent",
    "ResponseInProgressEvent",
    "ResponseOutputItemAddedEvent",
    "ResponseOutputItemDoneEvent",
    "ResponseContentPartAddedEvent",
    "ResponseContentPartDoneEvent",
    "ResponseTextDeltaEvent",
    "ResponseTextDoneEvent",
    "ResponseFunctionCallArgumentsDeltaEvent",
    "ResponseFunctionCallArgumentsDoneEvent",
    "ResponseCustomToolCallInputDeltaEvent",
    "ResponseCustomToolCallInputDoneEvent",
    "ResponseCompletedEvent",
    "ResponseIncompleteEvent",
    "ResponseFailedEvent",
)
"""The events that this server sends."""
_SCHEMAS = "/components/schemas"
_TEXT = {"type": "string"}
_ANYTHING: Json = {}
_MESSAGE = {
    "type": "object",
    "properties": {
        "type": {"enum": ["message"]},
        "role": {"enum": ["user", "system", "developer", "assistant"]},
        "content": {"anyOf": [_TEXT, {"enum": [None, []]}]},
    },
    "required": ["role", "content"],
    "additionalProperties": True,
}
_FORMATS = {
    "anyOf": [
        {"type": "object", "properties": {"type": {"enum": [kind]}}, "required": ["type"]}
        for kind in ("text", "json_object")
    ]
}
_REQUEST = {
    "type": "object",
    "properties": {
        "model": _TEXT,
        "input": {"anyOf": [_TEXT, {"type": "array", "items": _MESSAGE, "minItems": 1, "maxItems": 2048}]},
        "instructions": or_null(**_TEXT),
        "temperature": or_null(type="number", minimum=0, maximum=2),
        "top_p": or_null(type="number", minimum=0, maximum=1),
        "top_logprobs": or_null(type="integer", minimum=0, maximum=20),
        "max_output_tokens": or_null(type="integer", minimum=1, maximum=2**31 - 1),
        "parallel_tool_calls": or_null(type="boolean"),
        "stream": or_null(type="boolean"),
        "truncation": {"enum": ["auto", "disabled", None]},
        "include": {
            "type": "array",
            "items": {"enum": ["message.output_text.logprobs", "reasoning.encrypted_content"]},
        },
        "text": {"type": "object", "properties": {"format": _FORMATS, "verbosity": _ANYTHING}},
        "store": or_null(type="boolean"),
        "reasoning": _ANYTHING,
        "max_tool_calls": _ANYTHING,
    },
    "required": ["model", "input"],
}
RESPONSES_FORM = [
    flat("Response", "The same object without allOf: objects are closed, which parts of an allOf cannot be."),
]
RESPONSES_API = [
    put(
        f"{_SCHEMAS}/CreateResponse",
        _REQUEST,
        "The document has 942 parameters, most of them of tools that only OpenAI can run. Requests are "
        "generated from these; the gateway's own tests check that each of the 942 has a treatment.",
        Shown({"max_output_tokens": 1}, path=RESPONSES),
        Shown({"input": [HI], "conversation": "conv_1"}, param="conversation", path=RESPONSES),
        Shown({"previous_response_id": "resp_1"}, param="previous_response_id", path=RESPONSES),
        Shown({"background": True}, param="background", path=RESPONSES),
    ),
    put(
        f"{PATHS}/~1v1~1responses/post/responses/200/content/text~1event-stream",
        {},
        "As for chat: a stream is many objects. response_streams.py validates each against its own schema.",
    ),
    put(
        f"{_SCHEMAS}/Response/properties/store",
        {"type": "boolean"},
        "Whether the response is stored; OpenAI's server says so, too.",
    ),
    put(
        f"{_SCHEMAS}/ResponseUsage/properties/input_tokens_details/properties/cache_write_tokens",
        {"type": "integer", "minimum": 0},
        "Newer SDKs have the field and do not expect that it is missing.",
    ),
]
RESPONSES_API += [
    put(
        f"{_SCHEMAS}/{name}/properties/obfuscation",
        _TEXT,
        "What stream_options.include_obfuscation adds, by the prose; the schema forgets it.",
    )
    for name in (
        "ResponseTextDeltaEvent",
        "ResponseFunctionCallArgumentsDeltaEvent",
        "ResponseCustomToolCallInputDeltaEvent",
    )
]
