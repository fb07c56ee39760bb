"""``/v1/chat/completions``."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.chat.request import parse
from gemma_gateway.chat.response import complete, stream
from gemma_gateway.chat.response_options import ChatResponseFormat
from gemma_gateway.disconnect import while_connected
from gemma_gateway.generation import generate
from gemma_gateway.json_schema_report import JsonSchemaReport
from gemma_gateway.response_base import ResponseBase
from gemma_gateway.routes.common import Gateway, get_gateway, json_body, json_response
from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.sse import open_stream

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None)
async def create(
    request: Request,
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
    gateway: Annotated[Gateway, Depends(get_gateway)],
) -> Response:
    """The model's reply to a conversation, complete or streamed."""
    model = await gateway.models.resolve(body.model)
    call = await while_connected(request.receive, parse(body, gateway.settings, model.option))
    form = ChatResponseFormat.of(body, ResponseBase.new("chatcmpl-", model.id, model.info))
    report, state = JsonSchemaReport(), request.state
    chunks = generate(gateway.engine, gateway.models, call, state.request_id, state.cache_salt, report)
    if body.stream:
        ping, padded = gateway.settings.sse_ping_seconds, body.include_obfuscation
        return await open_stream(request.receive, stream(form, chunks), ping, padded, report)
    return json_response(await while_connected(request.receive, complete(form, chunks)), report.headers)
