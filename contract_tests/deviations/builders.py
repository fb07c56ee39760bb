"""Functions that build deviations and their schemas."""

from typing import Any

from overlay import SCHEMAS, Deviation, Json, Shown, put

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PATHS = "/paths"
IN_CHAT = "/components/schemas/CreateChatCompletionRequest/properties"
IN_COMPLETION = "/components/schemas/CreateCompletionRequest/properties"
MESSAGES = "/components/schemas/ChatCompletionRequest"
INT32_MAX = 2**31 - 1
NULL = {"type": "null"}
NOTHING: Json = {"enum": [None, False, [], {}]}
"""No-op values, which every optional parameter accepts, known or not."""
INDEX = {"type": "integer", "minimum": 0, "maximum": INT32_MAX}
TOKENS = {"type": "array", "items": INDEX}
WORD = {"type": "string", "minLength": 1}
HI = {"role": "user", "content": "Hi"}
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
ERRORS = {
    "400": "the request is wrong",
    "401": "no API key, or a wrong one",
    "403": "asked under a host name that is not this server's",
    "404": "no such model",
    "408": "the request took too long",
    "413": "the body is too large",
    "429": "too many requests",
    "500": "our fault",
    "503": "the model cannot answer now",
}


def or_null(**schema: Any) -> Json:
    """This schema, or null."""
    return {"anyOf": [schema, NULL]}


def ref(name: str) -> Json:
    """The schema of this name."""
    return {"$ref": SCHEMAS + name}


def json_answer(schema: Json) -> Json:
    """A JSON response."""
    return {"description": "", "content": {"application/json": {"schema": schema}}}


def error(status: str) -> Json:
    """An error response in OpenAI's format."""
    return {**json_answer(ref("ErrorResponse")), "description": ERRORS[status]}


def chat(name: str, schema: Json, why: str, refused: Json = ...) -> Deviation:
    """A property of a chat request; ``refused`` is a value that only OpenAI's document allows."""
    shown = () if refused is ... else (Shown({name: refused}, param=name),)
    return put(f"{IN_CHAT}/{name}", schema, why, *shown)
