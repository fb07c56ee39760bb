"""``/v1/chat/completions``."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.answers import Head
from gemma_gateway.asking import ask
from gemma_gateway.chat.answer import Answer, fold, stream
from gemma_gateway.chat.question import read
from gemma_gateway.disconnect import while_connected
from gemma_gateway.routes.common import Gateway, gateway, json_body, json_response
from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.schema_report import SchemaReport
from gemma_gateway.sse import open_stream

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None)
async def create(
    request: Request,
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
    at: Annotated[Gateway, Depends(gateway)],
) -> Response:
    """Answer a conversation, whole or streamed."""
    served = await at.served.resolve(body.model)
    question = await while_connected(request.receive, read(body, at.settings, served.option))
    answer = Answer.to(body, Head.new("chatcmpl", served.id, served.info))
    report = SchemaReport()
    state = request.state
    chunks = ask(at.engine, at.served, question, state.request_id, state.cache_salt, report)
    if body.stream:
        return await open_stream(request.receive, stream(answer, chunks), body.include_obfuscation, report)
    return json_response(await while_connected(request.receive, fold(answer, chunks)), report.headers)
