"""Stored responses: ``/v1/responses/{id}``."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gemma_gateway.errors import BadRequest, NotFound
from gemma_gateway.response_store import JsonObject, ResponseStore, StoredResponse
from gemma_gateway.routes.common import READ, Gateway, get_gateway

router = APIRouter(prefix="/v1/responses/{response_id}")
MAX_ITEMS = 100
"""Items of one page."""
_RUNNING = ("queued", "in_progress")


def owner_of(request: Request) -> str:
    """Whose responses the request may read: those of its API key."""
    return request.state.cache_salt or ""


@router.api_route("", methods=READ, response_model=None)
async def retrieve(
    request: Request, response_id: str, gateway: Annotated[Gateway, Depends(get_gateway)]
) -> Response:
    """A stored response."""
    if request.query_params.get("stream", "false").lower() not in ("false", "0", ""):
        sentence = "'stream' is not supported for stored responses; request the response again later."
        raise BadRequest(sentence, param="stream", code="unsupported_parameter")
    return JSONResponse(await _body(request, response_id, gateway))


@router.delete("", response_model=None)
async def delete(
    request: Request, response_id: str, gateway: Annotated[Gateway, Depends(get_gateway)]
) -> Response:
    """Deletes a response; one that is being generated is cancelled before."""
    owner, store = owner_of(request), _store(response_id, gateway)
    await gateway.background.cancel((owner, response_id))
    if not await store.delete(owner, response_id):
        raise _not_found(response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


@router.post("/cancel", response_model=None)
async def cancel(
    request: Request, response_id: str, gateway: Annotated[Gateway, Depends(get_gateway)]
) -> Response:
    """Ends a response in the background. One that is complete already is unchanged."""
    body = await _body(request, response_id, gateway)
    if not body["background"]:
        sentence = "Only a response with 'background' true can be cancelled."
        raise BadRequest(sentence, param="response_id")
    owner, store = owner_of(request), _store(response_id, gateway)
    await gateway.background.cancel((owner, response_id))
    body = await _body(request, response_id, gateway)
    if body["status"] in _RUNNING:
        body = {**body, "status": "cancelled"}
        items = await store.input_items(owner, response_id) or []
        await store.put(owner, StoredResponse(body, items, body["previous_response_id"]))
    return JSONResponse(body)


@router.api_route("/input_items", methods=READ, response_model=None)
async def input_items(
    request: Request, response_id: str, gateway: Annotated[Gateway, Depends(get_gateway)]
) -> Response:
    """A page of the input items of a response."""
    items = await _store(response_id, gateway).input_items(owner_of(request), response_id)
    if items is None:
        raise _not_found(response_id)
    query = request.query_params
    return JSONResponse(
        _page(items, query.get("order", "desc"), query.get("after"), query.get("limit", "20"))
    )


def _page(items: list[JsonObject], order: str, after: str | None, limit: str) -> dict[str, Any]:
    if order not in ("asc", "desc"):
        raise _invalid("order", "'asc' or 'desc'")
    if not limit.isdecimal() or not 1 <= int(limit) <= MAX_ITEMS:
        raise _invalid("limit", f"an integer from 1 to {MAX_ITEMS}")
    ordered = items if order == "asc" else items[::-1]
    ids = [item["id"] for item in ordered]
    if after is not None and after not in ids:
        raise _invalid("after", "the id of an item")
    start = 0 if after is None else ids.index(after) + 1
    page = ordered[start : start + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": start + len(page) < len(items),
    }


def _invalid(param: Literal["order", "limit", "after"], expected: str) -> BadRequest:
    return BadRequest(f"Invalid '{param}': expected {expected}.", param=param, code="invalid_value")


async def _body(request: Request, response_id: str, gateway: Gateway) -> JsonObject:
    body = await _store(response_id, gateway).get(owner_of(request), response_id)
    if body is None:
        raise _not_found(response_id)
    return body


def _store(response_id: str, gateway: Gateway) -> ResponseStore:
    if gateway.store is None:
        raise _not_found(response_id, " This server stores no responses.")
    return gateway.store


def _not_found(response_id: str, more: str = "") -> NotFound:
    sentence = f"There is no response {response_id[:100]!r}.{more}"
    return NotFound(sentence, param="response_id", code="response_not_found")
