"""``truncation: auto``: the oldest turns are left out until the conversation fits the model's context."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from gemma_gateway.engine_client import EngineClient
from gemma_gateway.errors import ApiError
from gemma_gateway.generation import Chunks, EngineCall, fetch_tokens
from gemma_gateway.responses.request import ResponseCall

_OVERFLOW: Final = "context_length_exceeded"
_ROOM: Final = 8
"""A truncated conversation leaves at least this part of the context for the response: one eighth."""


async def generate_fitting(
    call: ResponseCall, engine: EngineClient, start: Callable[[EngineCall], Chunks]
) -> Chunks:
    """The engine's chunks for the conversation, or with ``truncation: auto`` for as much of it as fits.

    Args:
        call: the request.
        engine: counts the tokens of a conversation that does not fit.
        start: begins a generation.

    Raises:
        ApiError: of the engine; also when the conversation does not fit however much is left out.
    """
    begun = False
    try:
        async with aclosing(start(call.without(0))) as chunks:
            async for chunk in chunks:
                begun = True
                yield chunk
        return
    except ApiError as error:
        if begun or error.code != _OVERFLOW or call.body.truncation != "auto" or not call.droppable:
            raise
    async with aclosing(start(call.without(await _fewest(call, engine)))) as chunks:
        async for chunk in chunks:
            yield chunk


async def _fewest(call: ResponseCall, engine: EngineClient) -> int:
    """The smallest number of turns to leave out with which the rest fits, found by bisection."""
    low, high = 1, len(call.droppable)
    while low < high:
        middle = (low + high) // 2
        if await _fits(call.without(middle), engine):
            high = middle
        else:
            low = middle + 1
    return low


async def _fits(call: EngineCall, engine: EngineClient) -> bool:
    options = call.request.options.model_copy(update={"op": "tokenize"})
    request = call.request.model_copy(update={"options": options})
    try:
        tokens = await fetch_tokens(engine, replace(call, request=request))
    except ApiError as error:
        if error.code == _OVERFLOW:
            return False
        raise
    room = tokens.context_length // _ROOM
    return len(tokens.token_ids) + max(1, min(call.request.max_tokens or room, room)) <= tokens.context_length
