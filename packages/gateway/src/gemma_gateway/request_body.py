"""Reads a request's body into a validated object without blocking the event loop.

The JSON is counted while it arrives (``gemma_wire.json_limits``) and refused as soon as it exceeds a limit.
A large body is then parsed and validated in a thread. The parser holds Python's global lock for the complete
text, so the limits bound the time for which other requests wait.
"""

import asyncio
import re
from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from gemma_gateway.content_encoding import PIECE, content_decoder
from gemma_gateway.errors import BadRequest, BodyTooLarge
from gemma_gateway.schema.validation_errors import to_bad_request
from gemma_gateway.worker_thread import in_thread
from gemma_wire.json_limits import JsonCounter, JsonLimitExceeded

Body = TypeVar("Body", bound=BaseModel)
LARGE: Final = 2**15
"""From this size in bytes a body is parsed in a thread. A smaller one takes less time than the switch."""
_KEY: Final = re.compile(rb'"([\w.-]{1,64})"\s*\Z', re.ASCII)


async def read_body(request: Request, schema: type[Body], max_bytes: int) -> Body:
    """The request's body as ``schema``.

    Raises:
        BadRequest: it is not JSON, exceeds a limit of JSON, or does not match the schema.
        BodyTooLarge: it has more than ``max_bytes`` once decompressed.
        UnsupportedMediaType: its compression is not supported.
    """
    pieces = await _read_json(request, max_bytes)
    if sum(map(len, pieces)) < LARGE:
        return _parse(pieces, schema)
    return await in_thread(lambda: _parse(pieces, schema))


async def _read_json(request: Request, max_bytes: int) -> list[bytes]:
    """The decompressed body in pieces, within the limits."""
    pieces: list[bytes] = []
    size, counter = 0, JsonCounter()
    async for piece in _pieces(request):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise BodyTooLarge(f"The request body is over the limit of {max_bytes} bytes once decompressed.")
        try:
            counter.feed(piece)
        except JsonLimitExceeded as exceeded:
            raise _too_complex(exceeded, b"".join(pieces)) from None
    return pieces


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    decoding = content_decoder(", ".join(request.headers.getlist("content-encoding")))
    async for data in request.stream():
        for piece in decoding.pieces(data):
            yield piece
            if len(piece) == PIECE:  # let other requests run: this took about a millisecond
                await asyncio.sleep(0)
    decoding.end()


def _parse(pieces: list[bytes], schema: type[Body]) -> Body:
    text = b"".join(pieces)
    try:
        return schema.model_validate(from_json(text.removeprefix(BOM_UTF8), allow_inf_nan=False))
    except ValidationError as error:
        raise to_bad_request(error) from None
    except ValueError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.", code="invalid_json") from None


def _too_complex(exceeded: JsonLimitExceeded, text: bytes) -> BadRequest:
    """Names the parameter that exceeds the limit, if it can be found without parsing."""
    key = _KEY.search(text, max(exceeded.key_end - 100, 0), exceeded.key_end)
    if key is None:
        return BadRequest(f"The request body has {exceeded}.", code="request_too_complex")
    param = key[1].decode()
    sentence = f"Invalid '{param}': the request body has {exceeded}."
    return BadRequest(sentence, param=param, code="request_too_complex")
