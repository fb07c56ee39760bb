"""Stores a response when it is complete, and continues stored ones."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from openai.types.responses import Response

from gemma_gateway.errors import ApiError, BadRequest
from gemma_gateway.response_store import JsonObject, ResponseStore, StoredResponse
from gemma_gateway.responses.conversation import PlacedItem
from gemma_gateway.responses.events import ResponseStreamer
from gemma_gateway.responses.form import ResponseForm
from gemma_gateway.responses.request import placed_items
from gemma_gateway.responses.stored_items import from_stored, resolve_references, to_stored
from gemma_gateway.schema.responses import ResponsesRequest
from gemma_gateway.sse import NamedEvent

_PREVIOUS = "previous_response_id"


async def input_items(body: ResponsesRequest, store: ResponseStore | None, owner: str) -> list[PlacedItem]:
    """The complete input of a request: that of the response that it continues, and its own.

    Raises:
        BadRequest: the request needs what is not stored.
    """
    for name in (_PREVIOUS, "background"):
        if store is None and getattr(body, name):
            sentence = f"'{name}' needs stored responses, and this server stores none."
            raise BadRequest(sentence, param=name, code="unsupported_parameter")
    history: list[PlacedItem] = []
    if store is not None and body.previous_response_id is not None:
        items = await store.history(owner, body.previous_response_id)
        if items is None:
            sentence = f"The response {body.previous_response_id[:100]!r} or one before it is not stored."
            raise BadRequest(sentence, param=_PREVIOUS, code="previous_response_not_found")
        history = [(_PREVIOUS, item) for item in from_stored(items)]
    return history + await resolve_references(placed_items(body), store, owner)


@dataclass(frozen=True)
class Storing:
    """Where a response is stored.

    Args:
        store: takes the response.
        owner: of the response.
        items: its own input, as it is stored.
        previous: the response that it continues.
    """

    store: ResponseStore
    owner: str
    items: list[JsonObject]
    previous: str | None

    @staticmethod
    def of(body: ResponsesRequest, store: ResponseStore | None, owner: str) -> "Storing | None":
        """``None`` if the response shall not be stored.

        Raises:
            BadRequest: a response in the background must be stored.
        """
        if store is not None and body.store is not False:
            items = to_stored(item for _, item in placed_items(body))
            return Storing(store, owner, items, body.previous_response_id)
        if body.background:
            raise BadRequest("'background' is only allowed when 'store' is true.", param="background")
        return None

    async def save(self, response: Response) -> None:
        """Stores the response, or replaces it by a later state of it."""
        body = response.model_dump(by_alias=True, exclude_unset=True)
        await self.store.put(self.owner, StoredResponse(body, self.items, self.previous))

    async def saving(
        self, events: AsyncGenerator[NamedEvent, None], streamer: ResponseStreamer
    ) -> AsyncGenerator[NamedEvent, None]:
        """The events; the response is stored before the last one, after which a client may continue it."""
        async with aclosing(events):
            async for event in events:
                if streamer.response is not None:
                    await self.save(streamer.response)
                yield event

    async def generate(self, events: AsyncGenerator[NamedEvent, None], form: ResponseForm) -> None:
        """Stores that the response is in progress, once it is, and then the response; for the background.

        Args:
            events: of ``saving``.
            form: of the response.
        """
        begun = False
        async with aclosing(events):
            async for _ in events:
                if not begun:
                    begun = True
                    await self.save(form.response("in_progress"))

    async def fail(self, streamer: ResponseStreamer, error: ApiError) -> None:
        """Stores that the response has failed."""
        await self.save(streamer.failed(error).response)
