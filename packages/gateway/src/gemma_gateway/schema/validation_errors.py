"""Converts a pydantic error to the message, ``param`` and ``code`` of an OpenAI error."""

import json
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gemma_gateway.errors import BadRequest
from gemma_gateway.schema.strict_model import tag_of
from gemma_wire.errors import field_path

_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_JSON_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
_BOUNDS = {
    "greater_than": (">", "below_min"),
    "greater_than_equal": (">=", "below_min"),
    "less_than_equal": ("<=", "above_max"),
}
_TAG_KEYS = {"unknown_role": "role", "unknown_type": "type"}
_LONGEST_PARAM: Final = 200
_SHOWN: Final = 80
"""Characters of a value in a message."""
MessageAndCode = tuple[str, str]


def to_bad_request(error: ValidationError) -> BadRequest:
    """The first error that pydantic reports, for a client."""
    first = error.errors(include_url=False)[0]
    param = _param(first)
    sentence, code = _describe(first, param or "body")
    return BadRequest(sentence, param=param, code=code)


def _param(error: ErrorDetails) -> str | None:
    """``messages[0].content``; union tags and the ``[key]`` marker are not part of the path."""
    steps = [step[:_LONGEST_PARAM] if isinstance(step, str) else step for step in error["loc"]]
    path = [step for step in steps[:-1] if not _is_tag(step)] + steps[-1:]
    if path and error["type"] != "extra_forbidden" and (_is_tag(path[-1]) or path[-1] == "[key]"):
        path.pop()
    if error["type"] in _TAG_KEYS and isinstance(error["input"], dict):
        path.append(_TAG_KEYS[error["type"]])
    if error["type"] == "unsupported" and (key := _tagged_by(error)):
        path.append(key)
    if error["type"] == "conflict" and (inner := error["ctx"]["param"]):
        path.append(inner)
    return field_path(tuple(path))[:_LONGEST_PARAM] or None


def _tagged_by(error: ErrorDetails) -> str | None:
    """The key whose value selected a union member that is completely unsupported."""
    tag, value = error["loc"][-1], error["input"]
    if not _is_tag(tag) or not isinstance(value, dict):
        return None
    return next((key for key in _TAG_KEYS.values() if tag == tag_of(value.get(key))), None)


def _is_tag(step: int | str) -> bool:
    return isinstance(step, str) and step.startswith("<")


def _describe(error: ErrorDetails, param: str) -> MessageAndCode:
    kind = error["type"]
    if kind in _EXPECTED:
        return _wrong_type(param, _EXPECTED[kind], error["input"])
    if kind in _BOUNDS:
        return _out_of_bounds(error, param)
    formatter = _FORMATTERS.get(kind)
    return (
        formatter(error, param)
        if formatter
        else (f"Invalid value for '{param}': {error['msg']}.", "invalid_value")
    )


def _wrong_type(param: str, expected: str, value: Any) -> MessageAndCode:
    got = _JSON_NAMES.get(type(value), "something else")
    return f"Invalid type for '{param}': expected {expected}, but got {got} instead.", "invalid_type"


def _out_of_bounds(error: ErrorDetails, param: str) -> MessageAndCode:
    sign, side = _BOUNDS[error["type"]]
    (bound,) = error["ctx"].values()
    kind = "decimal" if isinstance(bound, float) else "integer"
    sentence = f"Invalid '{param}': expected a value {sign} {bound}, but got {show(error['input'])} instead."
    return sentence, f"{kind}_{side}_value"


def _missing(_: ErrorDetails, param: str) -> MessageAndCode:
    return f"Missing required parameter: '{param}'.", "missing_required_parameter"


def _unknown(_: ErrorDetails, param: str) -> MessageAndCode:
    return f"The parameter '{param}' is not supported by this server.", "unknown_parameter"


def _unsupported(error: ErrorDetails, param: str) -> MessageAndCode:
    hint = f": {error['ctx']['hint']}" if error["ctx"]["hint"] else ""
    useful = [show(value) for value in error["ctx"]["noop_values"] if value not in (None, [], {}, "")]
    if key := _tagged_by(error):
        value = show(error["input"][key])
        return f"The value {value} of '{param}' is not supported by this server{hint}.", "unsupported_value"
    if not useful:
        return f"The parameter '{param}' is not supported by this server{hint}.", "unsupported_parameter"
    value, others = show(error["input"]), " or ".join(useful)
    sentence = f"The value {value} of '{param}' is not supported by this server; it may be {others}{hint}."
    return sentence, "unsupported_value"


def _literal(error: ErrorDetails, param: str) -> MessageAndCode:
    return _not_among(param, error["input"], error["ctx"]["expected"])


def _tag(error: ErrorDetails, param: str) -> MessageAndCode:
    value = error["input"]
    if not isinstance(value, dict):
        return _wrong_type(param, "an object", value)
    key = _TAG_KEYS[error["type"]]
    if key not in value:
        return _missing(error, param)
    return _not_among(param, value[key], error["msg"])


def _shape(error: ErrorDetails, param: str) -> MessageAndCode:
    return _wrong_type(param, error["msg"], error["input"])


def _not_among(param: str, value: object, expected: str) -> MessageAndCode:
    return f"Invalid value for '{param}': {show(value)}. Supported values are: {expected}.", "invalid_value"


def _too_short(error: ErrorDetails, param: str) -> MessageAndCode:
    thing = "string" if isinstance(error["input"], str) else "array"
    return f"Invalid '{param}': an empty {thing} is not allowed.", f"empty_{thing}"


def _too_long(error: ErrorDetails, param: str) -> MessageAndCode:
    kinds: dict[type, tuple[str, str]] = {str: ("string", "characters"), dict: ("object", "keys")}
    thing, items = kinds.get(type(error["input"]), ("array", "items"))
    has, most = len(error["input"]), error["ctx"]["max_length"]
    sentence = f"Invalid '{param}': the {thing} has {has:,} {items}; {most:,} are allowed."
    return sentence, f"{thing}_above_max_length"


def _too_many_parts(error: ErrorDetails, param: str) -> MessageAndCode:
    return f"Invalid '{param}': the conversation {error['msg']}.", "array_above_max_length"


def _too_many_keys(error: ErrorDetails, param: str) -> MessageAndCode:
    return f"Invalid '{param}': the object {error['msg']}.", "object_above_max_length"


def _conflict(error: ErrorDetails, param: str) -> MessageAndCode:
    return f"'{param}' {error['ctx']['reason']}.", error["ctx"]["code"]


def _pattern(error: ErrorDetails, param: str) -> MessageAndCode:
    sentence = f"Invalid '{param}': expected a string that matches the pattern '{error['ctx']['pattern']}'."
    return sentence, "invalid_value"


def _token_id(_: ErrorDetails, param: str) -> MessageAndCode:
    return f"Invalid '{param}': a key must be a token's id.", "invalid_key"


def show(value: object) -> str:
    """A value approximately as the client wrote it, short enough for a message."""
    short = _shortened(value)
    text = repr(short) if isinstance(short, str) else json.dumps(short)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _shortened(value: object, levels: int = 4) -> object:
    """The beginning of a value, which may have millions of items or characters."""
    if isinstance(value, str):
        return value[:_SHOWN]
    if isinstance(value, list):
        return [_shortened(item, levels - 1) for item in value[:_SHOWN]] if levels else []
    if isinstance(value, dict):
        items = islice(value.items(), _SHOWN if levels else 0)
        return {key[:_SHOWN]: _shortened(item, levels - 1) for key, item in items}
    return value


_FORMATTERS: dict[str, Callable[[ErrorDetails, str], MessageAndCode]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "unsupported": _unsupported,
    "literal_error": _literal,
    "unknown_role": _tag,
    "unknown_type": _tag,
    "neither": _shape,
    "too_short": _too_short,
    "string_too_short": _too_short,
    "too_long": _too_long,
    "too_many_keys": _too_many_keys,
    "long_key": _too_many_keys,
    "too_many_parts": _too_many_parts,
    "string_too_long": _too_long,
    "string_pattern_mismatch": _pattern,
    "token_id": _token_id,
    "conflict": _conflict,
}
