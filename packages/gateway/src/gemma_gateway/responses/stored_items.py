"""The items of a request as they are stored and listed, and stored items as the input of a request."""

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import uuid4

from pydantic import TypeAdapter

from gemma_gateway.errors import BadRequest
from gemma_gateway.response_store import JsonObject, ResponseStore
from gemma_gateway.responses.conversation import PlacedItem
from gemma_gateway.schema.response_items import (
    AnyItem,
    FunctionCallOutput,
    InputItem,
    ItemReference,
    OmittedItem,
    ReplyMessage,
)

_ITEM: Final[TypeAdapter[InputItem]] = TypeAdapter(AnyItem)
_PREFIXES: Final = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


def to_stored(items: Iterable[InputItem]) -> list[JsonObject]:
    """The items that the model sees, in the form in which the API lists them."""
    return [_stored(item) for item in items if not isinstance(item, OmittedItem | ItemReference)]


def _stored(item: InputItem) -> JsonObject:
    fields: JsonObject = item.model_dump(exclude_none=True)
    fields["id"] = fields.get("id") or f"{_PREFIXES[item.type]}_{uuid4().hex}"
    fields["status"] = fields.get("status") or "completed"
    is_reply = isinstance(item, ReplyMessage)
    if isinstance(item, FunctionCallOutput):
        if isinstance(item.output, list):
            fields["output"] = [_part(part, is_reply) for part in fields["output"]]
    elif "content" in fields:
        fields["content"] = [_part(part, is_reply) for part in _parts(fields["content"])]
    return fields


def _parts(content: str | list[JsonObject]) -> list[JsonObject]:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


def _part(part: JsonObject, is_reply: bool) -> JsonObject:
    if is_reply and part["type"] in ("input_text", "output_text"):
        return {"type": "output_text", "text": part["text"], "annotations": [], "logprobs": []}
    return part


def from_stored(items: Sequence[JsonObject]) -> list[InputItem]:
    """Stored items as the input of a request."""
    return [_ITEM.validate_python(item) for item in items]


async def resolve_references(
    items: Sequence[PlacedItem], store: ResponseStore | None, owner: str
) -> list[PlacedItem]:
    """The items, with stored ones in the places of their references.

    Raises:
        BadRequest: an item is not stored.
    """
    return [(param, await _resolved(param, item, store, owner)) for param, item in items]


async def _resolved(param: str, item: InputItem, store: ResponseStore | None, owner: str) -> InputItem:
    if not isinstance(item, ItemReference):
        return item
    if store is None:
        sentence = f"'{param}' refers to a stored item, and this server stores none; send the item itself."
        raise BadRequest(sentence, param=param, code="unsupported_parameter")
    found: Any = await store.item(owner, item.id)
    if found is None:
        sentence = f"Invalid '{param}.id': there is no stored item {item.id[:100]!r}; send the item itself."
        raise BadRequest(sentence, param=f"{param}.id", code="item_not_found")
    return _ITEM.validate_python(found)
