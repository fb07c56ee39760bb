"""Parameters and endpoints that OpenAI does not have, with the names of other servers of open models."""

from deviations.builders import (
    CHAT,
    COMPLETIONS,
    IN_CHAT,
    IN_COMPLETION,
    INDEX,
    INT32_MAX,
    MESSAGES,
    NULL,
    PATHS,
    TOKENS,
    WORD,
    error,
    json_answer,
    or_null,
    ref,
)
from overlay import Deviation, Json, Shown, put

_JSON_SCHEMA = {"type": "object", "additionalProperties": True}
_FORMS = {
    "json": {"anyOf": [_JSON_SCHEMA, {"type": "boolean"}]},
    "json_object": {"enum": [True]},
    "regex": WORD,
    "choice": {"type": "array", "items": WORD, "minItems": 1},
    "grammar": WORD,
}
_STRUCTURED = {
    "anyOf": [
        *(
            {"type": "object", "properties": {name: form}, "required": [name]}
            for name, form in _FORMS.items()
        ),
        {"type": "object", "properties": {}},  # no form: it asks for nothing
        NULL,
    ]
}
_OWN: dict[str, tuple[Json, Json]] = {
    "top_k": (or_null(type="integer", minimum=-1, maximum=INT32_MAX), 5),
    "min_p": (or_null(type="number", minimum=0, maximum=1), 0.1),
    "repetition_penalty": (or_null(type="number", minimum=0.01, maximum=10), 1.1),
    "repeat_penalty": (or_null(type="number", minimum=0.01, maximum=10), 1.1),
    "min_tokens": (or_null(**INDEX), 1),
    "ignore_eos": (or_null(type="boolean"), True),
    "stop_token_ids": (or_null(type="array", maxItems=256, items=INDEX), [3]),
    "structured_outputs": (_STRUCTURED, {"choice": ["yes", "no"]}),
}
EXTRAS = [
    put(
        f"{at}/{name}",
        schema,
        "Not OpenAI's; named as the other servers of open models name it.",
        Shown({name: sample}, path=path),
    )
    for at, path in ((IN_CHAT, CHAT), (IN_COMPLETION, COMPLETIONS))
    for name, (schema, sample) in _OWN.items()
]
EXTRAS += [
    put(
        f"{MESSAGES}ToolMessage/properties/name",
        {"type": "string"},
        "Older clients name the function again; the call tells it already.",
    ),
]

_TOKENIZE: Json = {
    "type": "object",
    "properties": {
        "model": or_null(type="string"),
        "prompt": {"type": "string"},
        "add_special_tokens": or_null(type="boolean"),
        "return_token_strs": or_null(type="boolean"),
    },
    "required": ["prompt"],
}
_TOKENIZED: Json = {
    "type": "object",
    "properties": {
        "count": INDEX,
        "max_model_len": INDEX,
        "tokens": TOKENS,
        "token_strs": or_null(type="array", items={"type": "string"}),
    },
    "required": ["count", "max_model_len", "tokens"],
}
_DETOKENIZE: Json = {
    "type": "object",
    "properties": {"model": or_null(type="string"), "tokens": TOKENS},
    "required": ["tokens"],
}
_DETOKENIZED: Json = {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]}


_HEALTHY: Json = {
    "type": "object",
    "properties": {"status": {"enum": ["ok"]}},
    "required": ["status"],
    "additionalProperties": True,
}


def _operation(name: str, request: str, answer: str) -> Json:
    body = {"required": True, "content": {"application/json": {"schema": ref(request)}}}
    return {
        "post": {"operationId": name, "requestBody": body, "responses": {"200": json_answer(ref(answer))}}
    }


def _health(document: Json) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        answers = {"200": json_answer(ref("HealthResponse")), "503": error("503"), "403": error("403")}
        document["paths"][path] = {
            "get": {"operationId": path[1:].replace("/", "_"), "security": [], "responses": answers}
        }


MODELS = [
    put(f"/components/schemas/Model/properties/{name}", schema, "vLLM tells it, and its clients read it.")
    for name, schema in (("root", {"type": "string"}), ("parent", NULL), ("max_model_len", INDEX))
]
ENDPOINTS = [
    put(f"/components/schemas/{name}", schema, "Of the next two.")
    for name, schema in (
        ("TokenizeRequest", _TOKENIZE),
        ("TokenizeResponse", _TOKENIZED),
        ("DetokenizeRequest", _DETOKENIZE),
        ("DetokenizeResponse", _DETOKENIZED),
        ("HealthResponse", _HEALTHY),
    )
]
ENDPOINTS += [
    put(
        f"{PATHS}/~1{name}",
        _operation(name, f"{name.capitalize()}Request", f"{name.capitalize()}Response"),
        "Not OpenAI's; named as the other servers of open models name it.",
    )
    for name in ("tokenize", "detokenize")
]
ENDPOINTS += [
    Deviation(
        tuple(f"{PATHS}/~1health{more}" for more in ("", "~1live", "~1ready")),
        "For whoever watches the server; needs no API key.",
        _health,
    )
]
