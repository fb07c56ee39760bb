"""What is not in OpenAI's document and accepted, because clients of other servers send it."""

from deviations.builders import COMPLETIONS, HI, IN_CHAT, IN_COMPLETION, MESSAGES, NOTHING, NULL, TOOL, ref
from overlay import Deviation, Json, Shown, add_member, generous, put

_TEXT = {"type": "string"}
_WIDER = "Other servers' clients write it so, and its meaning is plain."
_HISTORY = "A history holds what other servers wrote into it; unknown fields of messages are ignored."
_NO_EFFECT = "Other servers know it; here no value of it could change an answer."
_URL: Json = {
    "anyOf": [
        _TEXT,
        {"type": "object", "properties": {"url": _TEXT}, "required": ["url"], "additionalProperties": True},
    ]
}
_AUDIO_URL = {
    "type": "object",
    "properties": {"type": {"enum": ["audio_url"]}, "audio_url": _URL},
    "required": ["type", "audio_url"],
    "additionalProperties": True,
}
_REASONING = {
    "type": "object",
    "properties": {"type": {"enum": ["reasoning", "thinking", "redacted_thinking"]}},
    "required": ["type"],
    "additionalProperties": True,
}
_CALL = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "type": {"enum": ["function"]},
        "function": {
            "type": "object",
            "properties": {"name": _TEXT, "arguments": {"anyOf": [_TEXT, NULL]}},
            "required": ["name", "arguments"],
            "additionalProperties": True,
        },
    },
    "required": ["id", "type", "function"],
    "additionalProperties": True,
}
NEVER_MATTERS: dict[str, Json] = {
    "length_penalty": 1.0,
    "early_stopping": True,
    "reasoning": {"effort": "low"},
    "include_reasoning": True,
    "separate_reasoning": True,
    "enable_thinking": False,
    "thinking": {"type": "disabled"},
    "spaces_between_special_tokens": True,
    "mirostat_tau": 5.0,
    "request_id": "r",
    "priority": 1,
    "keep_alive": "5m",
    "num_ctx": 4096,
    "cache_prompt": True,
    "provider": {"order": ["x"]},
    "models": ["a"],
    "transforms": ["middle-out"],
    "usage": {"include": True},
}
"""Parameters without effect, each with a value that clients send."""
NEUTRAL: dict[str, Json] = {
    "use_beam_search": False,
    "typical_p": 1,
    "mirostat": 0,
    "xtc_probability": 0,
    "repeat_last_n": 64,
    "truncate_prompt_tokens": None,
}
"""Unsupported parameters, each with a no-op value."""


def _content(part: str) -> Json:
    return {"anyOf": [_TEXT, {"type": "array", "items": ref(f"ChatCompletionRequest{part}")}, NULL]}


def _open_history(document: Json) -> None:
    schemas = document["components"]["schemas"]
    for role in ("Developer", "System", "User", "Assistant", "Tool"):
        schemas[f"ChatCompletionRequest{role}Message"]["additionalProperties"] = True
    for part in ("Text", "Image", "Audio", "File", "Refusal"):
        schema = schemas[f"ChatCompletionRequestMessageContentPart{part}"]
        schema["additionalProperties"] = True
        for inner in schema["properties"].values():
            if "properties" in inner:
                inner["additionalProperties"] = True


def _content_at(role: str, part: str) -> Deviation:
    return put(
        f"{MESSAGES}{role}Message/properties/content", _content(part), "Nothing said is an empty text."
    )


def _bodies(document: Json) -> Json:
    operations = (each for methods in document["paths"].values() for each in methods.values())
    return [operation["requestBody"] for operation in operations if "requestBody" in operation]


_PART = f"{MESSAGES}MessageContentPart"
HISTORY = [
    _content_at("Developer", "MessageContentPartText"),
    _content_at("System", "SystemMessageContentPart"),
    _content_at("User", "UserMessageContentPart"),
    _content_at("Assistant", "AssistantMessageContentPart"),
    _content_at("Tool", "UserMessageContentPart"),
    add_member(
        f"{MESSAGES}AssistantMessageContentPart/oneOf",
        _REASONING,
        "Earlier reasoning is in many histories; the model is not shown it.",
    ),
    add_member(f"{MESSAGES}UserMessageContentPart/oneOf", _AUDIO_URL, "vLLM's name for audio by URL."),
    put(f"{_PART}Text/properties/type/enum", ["text", "input_text", "output_text"], _WIDER),
    put(f"{_PART}Text/properties/text", {"anyOf": [_TEXT, NULL]}, "As an empty text."),
    put(f"{_PART}Refusal/properties/refusal", {"anyOf": [_TEXT, NULL]}, "As an empty text."),
    put(f"{_PART}Image/properties/type/enum", ["image_url", "input_image"], _WIDER),
    put(
        f"{_PART}Image/properties/image_url",
        _URL,
        "A URL may stand for the object that holds it; every image is seen at the model's one resolution.",
    ),
    put(
        f"{_PART}Audio/properties/input_audio",
        {"type": "object", "properties": {"data": _TEXT}, "required": ["data"], "additionalProperties": True},
        "The content of a file tells its format.",
    ),
    put(
        f"{MESSAGES}AssistantMessage/properties/tool_calls",
        {"type": "array", "items": _CALL},
        _HISTORY,
    ),
    Deviation(
        ("**/additionalProperties",),
        _HISTORY,
        _open_history,
        (
            Shown({"messages": [{**HI, "mood": "good"}]}),
            Shown(
                {
                    "messages": [
                        {"role": "user", "content": [{"type": "input_text", "text": "Hi", "id": 1}]},
                        {
                            "role": "assistant",
                            "content": [{"type": "thinking", "thinking": "hm"}],
                            "reasoning_content": "hm",
                            "annotations": [],
                            "tool_calls": [
                                {
                                    "index": 0,
                                    "id": "c",
                                    "type": "function",
                                    "function": {"name": "f", "arguments": "{}"},
                                }
                            ],
                        },
                        {"role": "tool", "tool_call_id": "c", "content": None},
                    ]
                }
            ),
        ),
    ),
]

ACCEPTED = [put(f"{at}/{name}", {}, _NO_EFFECT) for at in (IN_CHAT, IN_COMPLETION) for name in NEVER_MATTERS]
ACCEPTED += [
    put(f"{at}/{name}", {"enum": [value]}, "Other servers know it; this value of it asks for nothing.")
    for at in (IN_CHAT, IN_COMPLETION)
    for name, value in NEUTRAL.items()
]
ACCEPTED += [
    put(
        f"{IN_CHAT}/{name}",
        schema,
        why,
        Shown({name: value}),
    )
    for name, schema, why, value in (
        ("reasoning_effort", {}, "Gemma 3n does not reason, however much of it is asked for.", "turbo"),
        ("verbosity", {}, "Gemma 3n has no such control.", "quiet"),
        ("store", {}, "Nothing is stored here, whatever is asked.", "yes"),
        ("prompt_cache_retention", {}, "What was computed before is always used again.", "1h"),
        ("prompt_cache_options", {}, "What was computed before is always used again.", "any"),
        ("service_tier", {"type": "string"}, "There is one tier; the answer names it.", "gold"),
        ("best_of", {"enum": [1]}, "Older servers know it in chat; one answer of one is what it is.", 1),
    )
]
ACCEPTED += [
    put(
        "/components/schemas/PredictionContent/properties/content",
        {
            "anyOf": [
                _TEXT,
                {"type": "array", "items": ref("ChatCompletionRequestMessageContentPartText")},
                NULL,
            ]
        },
        "An empty prediction asks for nothing.",
        Shown({"prediction": {"type": "content", "content": []}}),
    )
]
ACCEPTED += [
    put(f"{IN_COMPLETION}/reasoning_effort", {}, _NO_EFFECT),
    *(put(f"{at}/do_sample", {"type": "boolean"}, "transformers' name.") for at in (IN_CHAT, IN_COMPLETION)),
]
GENEROUS = generous(
    _bodies,
    NOTHING,
    "What asks for nothing is accepted for every parameter that may be left out, and for unknown ones; "
    "anything else that this server does not know it refuses by name, and drops nothing in silence.",
    Shown({"frobnicate": 1}, param="frobnicate"),
    Shown({"tools": [{**TOOL, "mood": "good"}]}, param="tools[0].mood"),
    Shown({"frobnicate": None, "functions": [], "audio": False, "stop": [], "user": None}),
    Shown({"tools": None, "response_format": None, "tool_choice": {}, "web_search_options": {}}),
    Shown(NEVER_MATTERS | NEUTRAL),
    Shown(NEVER_MATTERS | NEUTRAL, path=COMPLETIONS),
    Shown({"suffix": None, "logprobs": False, "best_of": []}, path=COMPLETIONS),
    Shown({"echo": False}),
)
