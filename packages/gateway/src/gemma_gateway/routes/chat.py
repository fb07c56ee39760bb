"""``/v1/chat/completions``."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway import chat
from gemma_gateway.disconnect import while_connected
from gemma_gateway.routes.common import Gateway, gateway, json_body, json_response
from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.sse import open_stream

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None)
async def create(
    request: Request,
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
    at: Annotated[Gateway, Depends(gateway)],
) -> Response:
    """Answer a conversation, whole or streamed."""
    question = await chat.read(body, at.settings)
    info = await at.served.resolve(body.model)
    answer = chat.Answer.to(body, info.model)
    chunks = chat.ask(at.engine, at.served, question, request.state.request_id)
    if body.stream:
        return await open_stream(request.receive, chat.stream(answer, chunks))
    return json_response(await while_connected(request.receive, chat.fold(answer, chunks)))
