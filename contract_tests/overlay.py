"""Intended changes of a document, each with its reason."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Json = Any
SCHEMAS = "#/components/schemas/"


class Stale(Exception):
    """A deviation without effect."""


@dataclass(frozen=True)
class Shown:
    """A request that demonstrates a deviation.

    Args:
        body: added to a plain request.
        param: whom the refusal names; ``None``: it is served.
        path: of the endpoint.
    """

    body: dict[str, Json]
    param: str | None = None
    path: str = "/v1/chat/completions"


@dataclass(frozen=True)
class Deviation:
    """One difference between OpenAI's document and ours.

    Args:
        at: JSON pointers of all that may change; ``*`` is any one step.
        why: the reason, for people.
        change: makes it, in place.
        shown: requests that the official document and ours disagree about.
    """

    at: tuple[str, ...]
    why: str
    change: Callable[[Json], None]
    shown: tuple[Shown, ...] = ()

    def apply(self, document: Json) -> None:
        """Change the document.

        Raises:
            Stale: it was so already, or what was to be changed is gone.
        """
        before = copy.deepcopy(document)
        try:
            self.change(document)
        except (KeyError, IndexError, TypeError) as error:
            raise Stale(f"{self.at[0]}: {error!r} is not there") from error
        if before == document:
            raise Stale(f"{self.at[0]} is so already")


def put(at: str, value: Json, why: str, *shown: Shown) -> Deviation:
    """Sets the value at this location."""

    def change(document: Json) -> None:
        parent, key = _locate(document, at)
        parent[key] = copy.deepcopy(value)

    return Deviation((at,), why, change, shown)


def drop(at: str, why: str, *shown: Shown) -> Deviation:
    """Removes the value at this location."""

    def change(document: Json) -> None:
        parent, key = _locate(document, at)
        del parent[key]

    return Deviation((at,), why, change, shown)


def drop_member(at: str, name: str, why: str, *shown: Shown) -> Deviation:
    """Removes a schema or value from an ``anyOf``, ``oneOf`` or ``enum``."""

    def change(document: Json) -> None:
        parent, key = _locate(document, at)
        members = parent[key]
        kept = [each for each in members if each not in (name, {"$ref": SCHEMAS + name})]
        if len(kept) == len(members):
            raise KeyError(name)
        parent[key] = kept

    return Deviation((at,), why, change, shown)


def add_member(at: str, schema: Json, why: str, *shown: Shown) -> Deviation:
    """Adds a schema to an ``anyOf`` or ``oneOf``."""

    def change(document: Json) -> None:
        parent, key = _locate(document, at)
        parent[key] = [*parent[key], copy.deepcopy(schema)]

    return Deviation((at,), why, change, shown)


def flat(name: str, why: str) -> Deviation:
    """Merges an ``allOf`` of objects into one object; if a property is in several, the last one counts."""

    def change(document: Json) -> None:
        schemas = document["components"]["schemas"]
        schemas[name] = _flatten(schemas, schemas[name])

    return Deviation((f"/components/schemas/{name}",), why, change)


def closed(start: Callable[[Json], Json], why: str, *shown: Shown) -> Deviation:
    """Forbids unknown properties in all objects that a part of the document refers to."""

    def change(document: Json) -> None:
        schemas = document["components"]["schemas"]
        for schema in _objects(schemas, start(document), set()):
            schema["additionalProperties"] = False

    return Deviation(("**/additionalProperties",), why, change, shown)


def generous(start: Callable[[Json], Json], nothing: Json, why: str, *shown: Shown) -> Deviation:
    """Allows ``nothing`` for optional and unknown properties of all objects that are referred to."""

    def change(document: Json) -> None:
        schemas = document["components"]["schemas"]
        for schema in list(_objects(schemas, start(document), set(), closed_too=True)):
            schema.setdefault("additionalProperties", nothing)
            for name in schema["properties"].keys() - set(schema.get("required", ())):
                schema["properties"][name] = {"anyOf": [schema["properties"][name], nothing]}

    return Deviation(("**/additionalProperties", "**/properties/*"), why, change, shown)


def _flatten(schemas: Json, schema: Json) -> Json:
    if "$ref" in schema:
        return _flatten(schemas, schemas[schema["$ref"].removeprefix(SCHEMAS)])
    if "allOf" not in schema:
        return schema
    parts = [_flatten(schemas, part) for part in schema["allOf"]]
    return {
        "type": "object",
        "properties": {name: each for part in parts for name, each in part.get("properties", {}).items()},
        "required": [name for part in parts for name in part.get("required", [])],
    }


def _objects(schemas: Json, value: Json, seen: set[str], closed_too: bool = False) -> Iterator[Json]:
    """Every object schema with named properties that a part of the document refers to.

    Those that say what other properties they may have are left out, unless ``closed_too``.
    """
    if isinstance(value, list):
        for each in value:
            yield from _objects(schemas, each, seen, closed_too)
    if not isinstance(value, dict):
        return
    name = value.get("$ref")
    if isinstance(name, str) and name not in seen:
        seen.add(name)
        yield from _objects(schemas, schemas[name.removeprefix(SCHEMAS)], seen, closed_too)
    if isinstance(value.get("properties"), dict) and (closed_too or "additionalProperties" not in value):
        yield value
    for each in value.values():
        yield from _objects(schemas, each, seen, closed_too)


def _locate(document: Json, pointer: str) -> tuple[Json, Any]:
    """The container and the key of a JSON pointer; the key may be new."""
    *steps, last = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    for step in steps:
        document = document[int(step) if isinstance(document, list) else step]
    return document, int(last) if isinstance(document, list) else last


def differences(before: Json, after: Json, at: str = "") -> Iterator[str]:
    """JSON pointers of all differences."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            step = f"{at}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in before or key not in after:
                yield step
            else:
                yield from differences(before[key], after[key], step)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{at}/{index}")
    elif before != after:
        yield at
