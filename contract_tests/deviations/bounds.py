"""Bounds that the document only has in its prose, or omits."""

from deviations.builders import (
    CHAT,
    COMPLETIONS,
    IN_CHAT,
    IN_COMPLETION,
    INDEX,
    INT32_MAX,
    NULL,
    TOKENS,
    TOOL,
    WORD,
    chat,
    or_null,
)
from overlay import Deviation, Json, Shown, put

_INT64 = {"minimum": -(2**63), "maximum": 2**63 - 1}
_FUNCTION_NAME = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_CUSTOM = "/components/schemas/CustomToolChatCompletions/properties/custom/properties"
_EMPTY_GRAMMAR = {
    "type": "custom",
    "custom": {
        "name": "f",
        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": ""}},
    },
}
_POSITIVE = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": INT32_MAX}, {"enum": [-1]}, NULL]}
_STOP = {"anyOf": [WORD, {"type": "array", "minItems": 1, "maxItems": 16, "items": WORD}, NULL]}
_BIAS = or_null(
    type="object",
    maxProperties=1024,
    propertyNames={"pattern": "^(0|[1-9][0-9]{0,8})$"},
    additionalProperties={"type": "number", "minimum": -100, "maximum": 100},
)
_WHY_BIAS = "The prose says what the keys and the bounds are; a bias need not be a whole number."
_WHY_INT64 = "A seed has 64 bits; the document's bounds are rounded, and lie outside of them."


def _named(kind: str) -> Json:
    named = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": True,
    }
    properties = {"type": {"enum": [kind]}, kind: named}
    return {"type": "object", "properties": properties, "required": ["type", kind]}


def _seed(at: str, path: str) -> Deviation:
    shown = Shown({"seed": 9_223_372_036_854_775_900}, param="seed", path=path)
    return put(f"{at}/seed", or_null(type="integer", **_INT64), _WHY_INT64, shown)


BOUNDS = [
    *(
        chat(
            name,
            _POSITIVE,
            "An answer of no tokens is none; -1 is no limit, as llama.cpp and its clients write it.",
            0,
        )
        for name in ("max_tokens", "max_completion_tokens")
    ),
    _seed(IN_CHAT, CHAT),
    _seed(IN_COMPLETION, COMPLETIONS),
    put(
        "/components/schemas/StopConfiguration",
        _STOP,
        "Every answer holds the empty string from its beginning on.",
        Shown({"stop": ""}, param="stop"),
    ),
    chat("logit_bias", _BIAS, _WHY_BIAS, {"5": 101}),
    put(
        f"{IN_COMPLETION}/logit_bias",
        _BIAS,
        _WHY_BIAS,
        Shown({"logit_bias": {"x": 1}}, param="logit_bias", path=COMPLETIONS),
    ),
    put(
        "/components/schemas/Metadata/anyOf/0",
        {
            "type": "object",
            "maxProperties": 16,
            "propertyNames": {"maxLength": 64},
            "additionalProperties": {"type": "string", "maxLength": 512},
        },
        "The prose says so.",
        Shown({"metadata": {"x" * 65: ""}}, param="metadata"),
    ),
    put(
        f"{IN_CHAT}/tools/maxItems",
        128,
        "The prose says so.",
        Shown({"tools": [TOOL] * 129}, param="tools"),
    ),
    *(
        put(at, _FUNCTION_NAME, "The prose says so.", shown)
        for at, shown in (
            (
                "/components/schemas/FunctionObject/properties/name",
                Shown(
                    {"tools": [{"type": "function", "function": {"name": "a b"}}]},
                    param="tools[0].function.name",
                ),
            ),
            (
                "/components/schemas/ResponseFormatJsonSchema/properties/json_schema/properties/name",
                Shown(
                    {
                        "response_format": {
                            "type": "json_schema",
                            "json_schema": {"name": "a b", "schema": {}},
                        }
                    },
                    param="response_format.json_schema.name",
                ),
            ),
        )
    ),
    put(
        f"{_CUSTOM}/format/oneOf/1/properties/grammar/properties/definition",
        WORD,
        "An empty grammar allows nothing.",
        Shown({"tools": [_EMPTY_GRAMMAR]}, param="tools[0].custom.format.grammar.definition"),
    ),
    put(
        f"{_CUSTOM}/name",
        _FUNCTION_NAME,
        "As the names of functions.",
        Shown({"tools": [{"type": "custom", "custom": {"name": "a b"}}]}, param="tools[0].custom.name"),
    ),
    put(
        "/components/schemas/ChatCompletionAllowedTools/properties/tools/items",
        {"oneOf": [_named("function"), _named("custom")]},
        "The document says no more than object; the prose says what is in it.",
        Shown(
            {
                "tools": [TOOL],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{}]}},
            },
            param="tool_choice.allowed_tools.tools[0]",
        ),
    ),
    put(
        f"{IN_COMPLETION}/max_tokens",
        {"anyOf": [INDEX, {"enum": [-1]}, NULL]},
        "-1 is no limit. A context of more than 2^31 tokens is not in sight.",
        Shown({"max_tokens": 2**31}, param="max_tokens", path=COMPLETIONS),
    ),
    put(
        f"{IN_COMPLETION}/prompt",
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 128},
                {**TOKENS, "minItems": 1},
                {"type": "array", "items": {**TOKENS, "minItems": 1}, "minItems": 1, "maxItems": 128},
                NULL,
            ]
        },
        "No prompts have no answer; a token is a number of the vocabulary.",
        Shown({"prompt": []}, param="prompt", path=COMPLETIONS),
        Shown({"prompt": [-1]}, param="prompt", path=COMPLETIONS),
    ),
]
