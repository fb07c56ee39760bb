"""How each parameter is treated, read from the request schemas."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from gemma_gateway.schema.strict_model import Ignored, Unsupported, is_noop

Treatment = Literal["supported", "ignored", "unsupported"]
"""Every parameter has exactly one."""


@dataclass(frozen=True)
class ParameterRow:
    """One row of the table.

    Args:
        path: such as ``messages[user].content[image_url].image_url.detail``; brackets contain the ``role``
            or ``type`` that selects one of several forms.
        treatment: of the parameter. Unless it is supported, it also applies to nested fields.
        note: a clause for the docs; may be empty.
    """

    path: str
    treatment: Treatment
    note: str = ""


def parameter_table(schema: type[BaseModel]) -> dict[str, ParameterRow]:
    """Path → row, for every parameter of a request, including nested ones."""
    return {parameter.path: parameter for parameter in _fields(schema, "")}


def _fields(model: type[BaseModel], path: str) -> Iterator[ParameterRow]:
    for name, field in model.model_fields.items():
        inner = f"{path}.{field.alias or name}" if path else field.alias or name
        parameter = _parameter(inner, field.metadata, field)
        yield parameter
        if parameter.treatment == "supported":
            yield from _inside(field.annotation, inner, chosen=False)


def _inside(annotation: Any, path: str, chosen: bool) -> Iterator[ParameterRow]:
    """The parameters in an annotation; ``chosen``: an item or union member, with its tag in the path."""
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


def _annotated(annotation: Any, path: str, chosen: bool) -> Iterator[ParameterRow]:
    inner, *marks = get_args(annotation)
    if any(isinstance(mark, Ignored | Unsupported) for mark in marks):
        (tag,) = (mark.tag for mark in marks if isinstance(mark, Tag))
        yield _parameter(path + tag.replace("<", "[").replace(">", "]"), marks)
    else:
        yield from _inside(inner, path, chosen)


def _tags(model: type[BaseModel]) -> list[str]:
    """``[user]``, or one for each role or type that selects the form; ``""`` if there is none."""
    for key in ("role", "type"):
        if key in model.model_fields:
            return [f"[{value}]" for value in get_args(model.model_fields[key].annotation)]
    return [""]


def _parameter(path: str, marks: list[Any], field: FieldInfo | None = None) -> ParameterRow:
    for mark in marks:
        if isinstance(mark, Ignored):
            return ParameterRow(path, "ignored", mark.reason)
        if isinstance(mark, Unsupported):
            return ParameterRow(path, "unsupported", _exceptions(mark))
    return ParameterRow(path, "supported", (field.description if field else None) or "")


def _exceptions(mark: Unsupported) -> str:
    """The values that are accepted, and what a client could do instead."""
    values = [f"`{json.dumps(value)}`" for value in mark.noop_values if not is_noop(value)]
    accepted = f"only {' or '.join(values)}" if values else ""
    return "; ".join(filter(None, (accepted, mark.hint)))
