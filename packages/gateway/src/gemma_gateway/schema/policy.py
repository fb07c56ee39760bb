"""What becomes of each parameter, read off the schemas themselves. Nothing is dropped in silence."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from gemma_gateway.schema.base import NoEffect, Only, asks_for_nothing

Disposition = Literal["honoured", "no effect", "refused"]
"""Every parameter has exactly one."""


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Args:
        path: such as ``messages[user].content[image_url].image_url.detail``; what stands in brackets is the
            ``role`` or ``type`` that chooses among several forms.
        disposition: of the parameter and, unless it is honoured, of all that it may hold.
        note: a clause for people; may be empty.
    """

    path: str
    disposition: Disposition
    note: str = ""


def parameters(schema: type[BaseModel]) -> dict[str, Parameter]:
    """Every parameter of a request, nested ones too, by its path."""
    return {parameter.path: parameter for parameter in _fields(schema, "")}


def _fields(model: type[BaseModel], path: str) -> Iterator[Parameter]:
    for name, field in model.model_fields.items():
        inner = f"{path}.{field.alias or name}" if path else field.alias or name
        parameter = _parameter(inner, field.metadata, field)
        yield parameter
        if parameter.disposition == "honoured":
            yield from _inside(field.annotation, inner, chosen=False)


def _inside(annotation: Any, path: str, chosen: bool) -> Iterator[Parameter]:
    """What an annotation holds; ``chosen`` in a list or a union, where a form has its tag in the path."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _annotated(annotation, path, chosen)
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _inside(member, path, chosen=True)
    elif origin is list:
        yield from _inside(get_args(annotation)[0], path, chosen=True)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for tag in _tags(annotation) if chosen else [""]:
            yield from _fields(annotation, path + tag)


def _annotated(annotation: Any, path: str, chosen: bool) -> Iterator[Parameter]:
    inner, *marks = get_args(annotation)
    if any(isinstance(mark, NoEffect | Only) for mark in marks):
        (tag,) = (mark.tag for mark in marks if isinstance(mark, Tag))
        yield _parameter(path + tag.replace("<", "[").replace(">", "]"), marks)
    else:
        yield from _inside(inner, path, chosen)


def _tags(model: type[BaseModel]) -> list[str]:
    """``[user]``, or one for each role or type that the form goes by; ``""`` where it has none."""
    for key in ("role", "type"):
        if key in model.model_fields:
            return [f"[{value}]" for value in get_args(model.model_fields[key].annotation)]
    return [""]


def _parameter(path: str, marks: list[Any], field: FieldInfo | None = None) -> Parameter:
    for mark in marks:
        if isinstance(mark, NoEffect):
            return Parameter(path, "no effect", mark.why)
        if isinstance(mark, Only):
            return Parameter(path, "refused", _but_for(mark))
    return Parameter(path, "honoured", (field.description if field else None) or "")


def _but_for(mark: Only) -> str:
    """What a client may say nevertheless, and what it could do instead."""
    values = [f"`{json.dumps(value)}`" for value in mark.neutral if not asks_for_nothing(value)]
    accepted = f"only {' or '.join(values)}" if values else ""
    return "; ".join(filter(None, (accepted, mark.hint)))
