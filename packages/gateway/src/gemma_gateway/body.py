"""The body of a request, from the socket to a validated object, without keeping the event loop busy.

A body is counted as it comes (``gemma_wire.json_limits``) and refused as soon as it holds too much. What
remains is parsed and validated in a thread when it is large. The parser keeps Python's global lock until it
has read all of the text, so the limits are what bounds the time for which everything else waits.
"""

import asyncio
import re
from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from gemma_gateway.encoding import PIECE, decoder
from gemma_gateway.errors import BadRequest, BodyTooLarge
from gemma_gateway.schema.explain import explain
from gemma_gateway.threads import in_thread
from gemma_wire.json_limits import JsonCounter, JsonLimitExceeded

Body = TypeVar("Body", bound=BaseModel)
LARGE: Final = 2**15
"""Bytes from which on a body is parsed in a thread; what is smaller takes less time than the way there."""
_KEY: Final = re.compile(rb'"([\w.-]{1,64})"\s*\Z', re.ASCII)


async def read_body(request: Request, schema: type[Body], max_bytes: int) -> Body:
    """The request's body as ``schema``.

    Raises:
        BadRequest: it is no JSON, holds too much, or is not what the schema says.
        BodyTooLarge: it has more than ``max_bytes`` once decompressed.
        UnsupportedMediaType: it is compressed in a way that is not known here.
    """
    pieces = await _read_json(request, max_bytes)
    if sum(map(len, pieces)) < LARGE:
        return _parse(pieces, schema)
    return await in_thread(lambda: _parse(pieces, schema))


async def _read_json(request: Request, max_bytes: int) -> list[bytes]:
    """The text of the body, within the limits, in pieces."""
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
    decoding = decoder(", ".join(request.headers.getlist("content-encoding")))
    async for data in request.stream():
        for piece in decoding.pieces(data):
            yield piece
            if len(piece) == PIECE:  # more may be at hand, and others have waited for a millisecond
                await asyncio.sleep(0)
    decoding.end()


def _parse(pieces: list[bytes], schema: type[Body]) -> Body:
    text = b"".join(pieces)
    try:
        return schema.model_validate(from_json(text.removeprefix(BOM_UTF8), allow_inf_nan=False))
    except ValidationError as error:
        raise explain(error) from None
    except ValueError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.", code="invalid_json") from None


def _too_complex(exceeded: JsonLimitExceeded, text: bytes) -> BadRequest:
    """Names the parameter that holds the most, as far as it can be told without parsing."""
    key = _KEY.search(text, max(exceeded.key_end - 100, 0), exceeded.key_end)
    if key is None:
        return BadRequest(f"The request body holds {exceeded}.", code="request_too_complex")
    param = key[1].decode()
    sentence = f"Invalid '{param}': the request body holds {exceeded}."
    return BadRequest(sentence, param=param, code="request_too_complex")
