"""``/v1/responses``."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.disconnect import while_connected
from gemma_gateway.errors import ApiError, BadRequest
from gemma_gateway.generation import generate
from gemma_gateway.json_schema_report import JsonSchemaReport
from gemma_gateway.response_base import ResponseBase
from gemma_gateway.responses.events import ResponseStreamer, complete, stream
from gemma_gateway.responses.form import ResponseForm, to_bytes
from gemma_gateway.responses.request import parse
from gemma_gateway.responses.truncation import generate_fitting
from gemma_gateway.routes.common import Gateway, get_gateway, json_body
from gemma_gateway.schema.responses import ResponsesRequest
from gemma_gateway.sse import StreamProtocol, open_stream

router = APIRouter()


@router.post("/v1/responses", response_model=None)
async def create(
    request: Request,
    body: Annotated[ResponsesRequest, Depends(json_body(ResponsesRequest))],
    gateway: Annotated[Gateway, Depends(get_gateway)],
) -> Response:
    """The model's response to an input, complete or streamed."""
    model = await gateway.models.resolve(body.model)
    _check_needs_no_store(body)
    call = await while_connected(request.receive, parse(body, gateway.settings, model.option))
    streamer = ResponseStreamer(ResponseForm.of(body, ResponseBase.new("resp_", model.id, model.info)))
    report, state = JsonSchemaReport(), request.state
    start = partial(
        generate,
        gateway.engine,
        gateway.models,
        request_id=state.request_id,
        cache_salt=state.cache_salt,
        report=report,
    )
    chunks = generate_fitting(call, gateway.engine, start)
    if body.stream:
        ping, padded = gateway.settings.sse_ping_seconds, body.include_obfuscation
        protocol = StreamProtocol(end=b"", error=partial(_failed, streamer))
        return await open_stream(request.receive, stream(streamer, chunks), ping, padded, report, protocol)
    response = await while_connected(request.receive, complete(streamer, chunks))
    return Response(to_bytes(response), headers=report.headers, media_type="application/json")


def _failed(streamer: ResponseStreamer, error: ApiError) -> bytes:
    """The event for an error in a stream that has begun."""
    event = streamer.failed(error)
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), to_bytes(event))


def _check_needs_no_store(body: ResponsesRequest) -> None:
    for name in ("previous_response_id", "background"):
        if getattr(body, name):
            sentence = f"'{name}' needs stored responses, and this server stores none."
            raise BadRequest(sentence, param=name, code="unsupported_parameter")
