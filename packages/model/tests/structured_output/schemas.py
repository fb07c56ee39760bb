"""Forty schemas that can be enforced, and schemas that cannot be enforced or are invalid."""

from typing import Any

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def _object(properties: dict[str, Any], *optional: str, **more: Any) -> dict[str, Any]:
    """An object without other properties; all properties except ``optional`` are required."""
    required = [name for name in properties if name not in optional]
    closed = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {**closed, **more}


SCHEMAS: dict[str, dict[str, Any]] = {
    "any object": {"type": "object"},
    "anything": {},
    "flat": _object({"name": STRING, "age": INTEGER}),
    "optional": _object({"a": STRING, "b": INTEGER, "c": {"type": "boolean"}}, "b", "c"),
    "nested": _object({"a": _object({"b": _object({"c": STRING})})}),
    "nested arrays": _object({"rows": {"type": "array", "items": {"type": "array", "items": INTEGER}}}),
    "array": {"type": "array", "items": STRING},
    "array of objects": {"type": "array", "items": _object({"x": INTEGER, "y": INTEGER}), "maxItems": 3},
    "bounded array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [STRING, INTEGER], "items": False, "minItems": 2},
    "enum": {"enum": ["red", "green", 3, None, {"a": [1]}]},
    "enum of strings": _object({"unit": {"type": "string", "enum": ["°C", "°F", 'say "K"']}}),
    "const": _object({"kind": {"const": "circle"}, "r": {"type": "number"}}),
    "any of": {"anyOf": [_object({"a": STRING}), _object({"b": INTEGER})]},
    "any of types": _object({"a": {"anyOf": [STRING, INTEGER, {"type": "null"}]}}),
    "one of disjoint": {"oneOf": [_object({"kind": {"const": "a"}}), _object({"kind": {"const": "b"}})]},
    "list of types": _object({"a": {"type": ["string", "null"]}}),
    "all of": {"allOf": [{"type": "object", "properties": {"a": STRING}}, {"required": ["a"]}]},
    "reference": _object({"a": {"$ref": "#/$defs/point"}}) | {"$defs": {"point": _object({"x": INTEGER})}},
    "definitions": _object({"a": {"$ref": "#/definitions/n"}}) | {"definitions": {"n": INTEGER}},
    "recursive list": {
        "$ref": "#/$defs/node",
        "$defs": {"node": _object({"v": INTEGER, "next": {"$ref": "#/$defs/node"}}, "next")},
    },
    "recursive tree": {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": _object({"t": STRING, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}})
        },
    },
    "recursive from the root": _object({"child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}),
    "map": {"type": "object", "additionalProperties": INTEGER},
    "named and map": {
        "type": "object",
        "properties": {"a": STRING},
        "required": ["a"],
        "additionalProperties": INTEGER,
    },
    "patterned names": {
        "type": "object",
        "patternProperties": {"^x-[a-z]{2}$": INTEGER},
        "additionalProperties": False,
    },
    "bounded map": {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
    "short strings": _object({"a": {"type": "string", "minLength": 2, "maxLength": 5}}),
    "pattern": _object({"zip": {"type": "string", "pattern": "^[0-9]{5}(-[0-9]{4})?$"}}),
    "date": _object({"on": {"type": "string", "format": "date"}}),
    "date and time": _object({"at": {"type": "string", "format": "date-time"}}),
    "uuid": _object({"id": {"type": "string", "format": "uuid"}}),
    "address": _object(
        {"mail": {"type": "string", "format": "email"}, "ip": {"type": "string", "format": "ipv4"}}
    ),
    "integer in bounds": _object({"n": {"type": "integer", "minimum": -3, "maximum": 117}}),
    "number in bounds": _object({"n": {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5}}),
    "multiple": _object({"n": {"type": "integer", "multipleOf": 7, "minimum": 0}}),
    "unicode names": _object({"größe": INTEGER, "名前": STRING, 'quo"te': STRING}),
    "annotations": _object(
        {"a": {"type": "string", "title": "A", "description": "x", "examples": ["b"]}}, title="T"
    ),
    "from pydantic": {
        "$defs": {"Unit": {"enum": ["C", "F"], "title": "Unit", "type": "string"}},
        "properties": {
            "city": {"title": "City", "type": "string"},
            "unit": {"$ref": "#/$defs/Unit", "default": "C"},
            "days": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None, "title": "Days"},
        },
        "required": ["city"],
        "title": "Forecast",
        "type": "object",
    },
    "many": _object({f"field_{i}": {"type": ["integer", "boolean"]} for i in range(12)}),
}

UNENFORCEABLE: dict[str, dict[str, Any]] = {
    "not": {"not": {"pattern": "^a"}},
    "if": {"type": "object", "if": {"properties": {"a": {"pattern": "b"}}}, "then": {"required": ["a"]}},
    "uniqueItems": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    "contains": {"type": "array", "prefixItems": [INTEGER], "contains": STRING, "maxItems": 3},
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "(?=a)b"}},
    "unevaluatedProperties": {"anyOf": [{"properties": {"b": INTEGER}}], "unevaluatedProperties": False},
    "oneOf": {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "integer", "maximum": 3}]},
    "pattern": {"type": "string", "pattern": "(?=a)b"},
    "$ref": {"$ref": "https://example.org/schema.json"},
    "minItems": {"type": "array", "minItems": 3000},
    "multipleOf": {"type": "number", "multipleOf": 0.1234567890123},
    "minimum": {"type": "number", "minimum": 1e20},
}
"""Schemas that a grammar cannot enforce, by keyword."""

INVALID: dict[str, Any] = {
    "'type' at $.properties.a is 'text'": {"type": "text"},
    "'enum' at $.properties.a is empty": {"enum": []},
    "'required' at $.properties.a": {"required": "b"},
    "'pattern' at $.properties.a is not a string": {"pattern": 3},
    "'minimum' at $.properties.a is not a number": {"minimum": "3"},
    "'minLength' at $.properties.a is not a non-negative integer": {"minLength": -1},
    "'multipleOf' at $.properties.a is not above 0": {"multipleOf": 0},
    "the value at $.properties.a is not a schema": 3,
    "no output is valid for it": {"type": "array", "minItems": 3, "maxItems": 2},
    "'minimum' at $.properties.a is above the maximum": {"type": "number", "minimum": 3, "maximum": 2},
}
"""Invalid and unsatisfiable schemas, by a part of the error message."""
