"""``/v1/responses``."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.disconnect import while_connected
from gemma_gateway.errors import ApiError
from gemma_gateway.generation import generate
from gemma_gateway.json_schema_report import JsonSchemaReport
from gemma_gateway.response_base import ResponseBase
from gemma_gateway.responses.events import ResponseEvents, ResponseStreamer, complete, stream
from gemma_gateway.responses.form import ResponseForm, to_bytes
from gemma_gateway.responses.request import ResponseCall, parse
from gemma_gateway.responses.storing import Storing, input_items
from gemma_gateway.responses.truncation import generate_fitting
from gemma_gateway.routes.common import Gateway, get_gateway, json_body
from gemma_gateway.routes.stored_responses import owner_of
from gemma_gateway.schema.responses import ResponsesRequest
from gemma_gateway.sse import StreamProtocol, open_stream

router = APIRouter()


@router.post("/v1/responses", response_model=None)
async def create(
    request: Request,
    body: Annotated[ResponsesRequest, Depends(json_body(ResponsesRequest))],
    gateway: Annotated[Gateway, Depends(get_gateway)],
) -> Response:
    """The model's response to an input: complete, streamed, or in the background."""
    model = await gateway.models.resolve(body.model)
    items = await input_items(body, gateway.store, owner_of(request))
    storing = Storing.of(body, gateway.store, owner_of(request))
    call = await while_connected(request.receive, parse(body, items, gateway.settings, model.option))
    base = ResponseBase.new("resp_", model.id, model.info)
    form = ResponseForm.of(body, base, stored=storing is not None)
    streamer, report = ResponseStreamer(form), JsonSchemaReport()
    events = _events(request, gateway, call, streamer, report)
    if storing is not None:
        events = storing.saving(events, streamer)
        if body.background:
            return await _begin(gateway, storing, form, streamer, events)
    if body.stream:
        ping, padded = gateway.settings.sse_ping_seconds, body.include_obfuscation
        protocol = StreamProtocol(end=b"", error=partial(_failed, streamer))
        return await open_stream(request.receive, events, ping, padded, report, protocol)
    response = await while_connected(request.receive, complete(streamer, events))
    return Response(to_bytes(response), headers=report.headers, media_type="application/json")


def _events(
    request: Request,
    gateway: Gateway,
    call: ResponseCall,
    streamer: ResponseStreamer,
    report: JsonSchemaReport,
) -> ResponseEvents:
    start = partial(
        generate,
        gateway.engine,
        gateway.models,
        request_id=request.state.request_id,
        cache_salt=request.state.cache_salt,
        report=report,
    )
    return stream(streamer, generate_fitting(call, gateway.engine, start))


async def _begin(
    gateway: Gateway,
    storing: Storing,
    form: ResponseForm,
    streamer: ResponseStreamer,
    events: ResponseEvents,
) -> Response:
    """Begins a response in the background, and says that it will come."""
    queued = form.response("queued")
    gateway.background.start(
        (storing.owner, queued.id),
        partial(storing.generate, events, form),
        partial(storing.fail, streamer),
    )
    await storing.save(queued)
    return Response(to_bytes(queued), media_type="application/json")


def _failed(streamer: ResponseStreamer, error: ApiError) -> bytes:
    """The event for an error in a stream that has begun."""
    event = streamer.failed(error)
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), to_bytes(event))
