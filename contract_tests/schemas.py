"""Forty common JSON schemas, by name."""

from typing import Any

Schema = dict[str, Any]


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: Schema, most: int = 3, least: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


TEXT: Schema = {"type": "string", "maxLength": 8}
DIGIT: Schema = {"type": "integer", "minimum": 0, "maximum": 9}
FLAG: Schema = {"type": "boolean"}
COLOUR: Schema = {"enum": ["red", "green", "blue"]}
NULL: Schema = {"type": "null"}
_TREE = _object(value=DIGIT, left={"$ref": "#/$defs/leaf"}, right={"$ref": "#/$defs/leaf"})
_LIST = {
    "anyOf": [NULL, _object(head=DIGIT, tail={"$ref": "#/$defs/list"})],
}

SCHEMAS: dict[str, Schema] = {
    # scalars
    "a boolean": FLAG,
    "null": NULL,
    "a short text": TEXT,
    "an integer in bounds": DIGIT,
    "a negative integer": {"type": "integer", "minimum": -5, "maximum": -1},
    "exclusive bounds": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
    "a number in bounds": {"type": "number", "minimum": 0, "maximum": 1},
    "a const": {"const": "yes"},
    "an enum of texts": COLOUR,
    "an enum of all kinds": {"enum": [1, "two", None, True, [3]]},
    "several types": {"type": ["boolean", "null"]},
    "a pattern": {"type": "string", "pattern": "^[a-c]{2,4}$"},
    # formats
    "a date": {"type": "string", "format": "date"},
    "a time of day": {"type": "string", "format": "date-time"},
    "an UUID": {"type": "string", "format": "uuid"},
    "an IPv4 address": {"type": "string", "format": "ipv4"},
    # objects
    "an object": _object(name=TEXT, age=DIGIT),
    "an empty object": _object(),
    "objects in objects": _object(a=_object(b=_object(c=_object(d=FLAG)))),
    "an optional property": {**_object(a=FLAG, b=DIGIT), "required": ["a"]},
    "a map of numbers": {
        "type": "object",
        "additionalProperties": DIGIT,
        "maxProperties": 2,
        "properties": {},
    },
    "names that need escapes": _object(**{'a "b"': FLAG, "c\\d": FLAG, "é": FLAG}),
    "many properties": _object(**{f"p{number}": FLAG for number in range(12)}),
    "a title and a description": {**_object(a=FLAG), "title": "A", "description": "Whether."},
    "a default": _object(a={"type": "boolean", "default": True}),
    # arrays
    "an array": _array(DIGIT),
    "an array of two": _array(COLOUR, most=2, least=2),
    "an array of objects": _object(rows=_array(_object(id=DIGIT, tag=COLOUR), most=2, least=1)),
    "arrays in arrays": _array(_array(DIGIT, most=2), most=2),
    "a tuple": {
        "type": "array",
        "prefixItems": [COLOUR, DIGIT],
        "items": False,
        "minItems": 2,
        "maxItems": 2,
    },
    "different items": {"type": "array", "items": {"uniqueItems": True, **COLOUR}, "maxItems": 2},
    # choices
    "anyOf": _object(value={"anyOf": [DIGIT, COLOUR, NULL]}),
    "oneOf": {"oneOf": [_object(kind={"const": "a"}, x=DIGIT), _object(kind={"const": "b"}, y=COLOUR)]},
    "allOf": {"allOf": [_object(a=FLAG)]},
    "not": {"type": "string", "maxLength": 4, "not": {"const": "no"}},
    # references
    "a definition": {**_object(a={"$ref": "#/$defs/colour"}), "$defs": {"colour": COLOUR}},
    "older definitions": {**_object(a={"$ref": "#/definitions/colour"}), "definitions": {"colour": COLOUR}},
    "a tree of two levels": {**_TREE, "$defs": {"leaf": {"anyOf": [NULL, DIGIT]}}},
    "a recursive list": {**_object(list={"$ref": "#/$defs/list"}), "$defs": {"list": _LIST}},
    "a schema that contains itself": {
        "type": "object",
        "properties": {"name": COLOUR, "parts": _array({"$ref": "#"}, most=1)},
        "required": ["name"],
        "additionalProperties": False,
    },
}
