"""``/v1/messages``: Anthropic's Messages API."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.anthropic.events import message_events
from gemma_gateway.anthropic.request import parse, parse_count
from gemma_gateway.anthropic.response import complete, stream, stream_protocol
from gemma_gateway.anthropic.schema import CountTokensRequest, MessagesRequest
from gemma_gateway.anthropic.types import MessageTokensCount
from gemma_gateway.disconnect import while_connected
from gemma_gateway.generation import fetch_tokens, generate
from gemma_gateway.json_schema_report import JsonSchemaReport
from gemma_gateway.routes.common import Gateway, get_gateway, json_body
from gemma_gateway.sse import open_stream

router = APIRouter(prefix="/v1/messages")


@router.post("", response_model=None)
async def create(
    request: Request,
    body: Annotated[MessagesRequest, Depends(json_body(MessagesRequest))],
    gateway: Annotated[Gateway, Depends(get_gateway)],
) -> Response:
    """The model's reply to a conversation, complete or streamed."""
    model = await gateway.models.resolve(body.model)
    call = await while_connected(request.receive, parse(body, gateway.settings, model.option))
    report, state = JsonSchemaReport(), request.state
    chunks = generate(gateway.engine, gateway.models, call, state.request_id, state.cache_salt, report)
    events = message_events(f"msg_{uuid.uuid4().hex}", model.id, chunks)
    if body.stream:
        protocol = stream_protocol(request.url.path, state.request_id)
        ping = gateway.settings.sse_ping_seconds
        return await open_stream(request.receive, stream(events), ping, report=report, protocol=protocol)
    message = await while_connected(request.receive, complete(events))
    return Response(message.model_dump_json(), headers=report.headers, media_type="application/json")


@router.post("/count_tokens", response_model=None)
async def count_tokens(
    request: Request,
    body: Annotated[CountTokensRequest, Depends(json_body(CountTokensRequest))],
    gateway: Annotated[Gateway, Depends(get_gateway)],
) -> Response:
    """The number of tokens of a prompt, without a response to it."""
    model = await gateway.models.resolve(body.model)
    call = await while_connected(request.receive, parse_count(body, gateway.settings, model.option))
    tokens = await while_connected(request.receive, fetch_tokens(gateway.engine, call))
    count = MessageTokensCount(input_tokens=len(tokens.token_ids))
    return Response(count.model_dump_json(), media_type="application/json")
