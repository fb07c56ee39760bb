"""Reads a multipart form into a validated object; its file is spooled to a temporary file without a name."""

import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from gemma_gateway.errors import BadRequest, UnsupportedMediaType
from gemma_gateway.schema.validation_errors import to_bad_request

Form = TypeVar("Form", bound=BaseModel)
MAX_FIELDS: Final = 64
MAX_FIELD_BYTES: Final = 2**16
"""Of a field that is not a file."""
_BRACKETS: Final = re.compile(r"(\w{1,64})\[(\w{0,64})\]", re.ASCII)
_TEXTS: Final = ("model", "language", "prompt", "response_format")
"""Fields whose values are texts; others are JSON, such as ``true`` or ``0.5``, or texts if they are not."""


@asynccontextmanager
async def multipart_form(request: Request, schema: type[Form]) -> AsyncIterator[Form]:
    """The form of a request as ``schema``; its file is deleted at the end.

    ``name[]`` is an item of an array and ``name[key]`` a field of an object, as OpenAI's clients write them.

    Raises:
        BadRequest: it is not a form, exceeds a limit, or does not match the schema.
        UnsupportedMediaType: the body is compressed.
    """
    _check_headers(request)
    try:
        async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            yield _validated(form.multi_items(), schema)
    except HTTPException as error:
        raise BadRequest(f"The form is invalid: {error.detail}", code="invalid_form") from None


def _check_headers(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        sentence = f"The Content-Type must be 'multipart/form-data', not {kind[:100]!r}."
        raise BadRequest(sentence, code="unsupported_content_type")
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("A form with a file cannot be compressed.")


def _validated(items: Iterable[tuple[str, str | UploadFile]], schema: type[Form]) -> Form:
    try:
        return schema.model_validate(_nested(items))
    except ValidationError as error:
        raise to_bad_request(error) from None


def _nested(items: Iterable[tuple[str, str | UploadFile]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, text in items:
        bracketed = _BRACKETS.fullmatch(key)
        name, inner = bracketed.groups() if bracketed else (key, None)
        if isinstance(text, UploadFile) and name != "file":
            sentence = f"Invalid '{name[:100]}': a file is not expected here."
            raise BadRequest(sentence, param=name[:100], code="invalid_type")
        if text != "":
            _add(fields, name, inner, _value(name, text))
    return fields


def _add(fields: dict[str, Any], name: str, inner: str | None, value: Any) -> None:
    """Adds a field, an item of an array (``inner`` is empty) or a field of an object."""
    known = fields.get(name)
    if inner:
        fields[name] = {**(known if isinstance(known, dict) else {}), inner: value}
    elif inner == "" or known is not None:  # a repeated field is an array
        fields[name] = [*(known if isinstance(known, list) else [] if known is None else [known]), value]
    else:
        fields[name] = value


def _value(name: str, text: str | UploadFile) -> Any:
    if isinstance(text, UploadFile) or name in _TEXTS:
        return text
    try:
        return json.loads(text, parse_constant=lambda constant: constant)
    except (ValueError, RecursionError):
        return text
