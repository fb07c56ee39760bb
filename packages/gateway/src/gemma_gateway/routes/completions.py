"""``/v1/completions``."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.answers import Head
from gemma_gateway.asking import ask, together
from gemma_gateway.completions.answer import Answer, fold, stream
from gemma_gateway.completions.question import read
from gemma_gateway.disconnect import while_connected
from gemma_gateway.routes.common import Gateway, gateway, json_body, json_response
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.schema_report import SchemaReport
from gemma_gateway.sse import open_stream

router = APIRouter()


@router.post("/v1/completions", response_model=None)
async def create(
    request: Request,
    body: Annotated[CompletionRequest, Depends(json_body(CompletionRequest))],
    at: Annotated[Gateway, Depends(gateway)],
) -> Response:
    """Go on with one prompt or several, whole or streamed."""
    served = await at.served.resolve(body.model)
    prompts = await while_connected(request.receive, read(body, at.engine, served.option))
    answer = Answer(Head.new("cmpl", served.id, served.info), body, prompts)
    names = [request.state.request_id + (f"-{i}" if i else "") for i in range(len(prompts))]
    report = SchemaReport()
    chunks = together(
        [
            ask(at.engine, at.served, prompt.question, name, request.state.cache_salt, report)
            for prompt, name in zip(prompts, names, strict=True)
        ]
    )
    if body.stream:
        return await open_stream(request.receive, stream(answer, chunks), body.include_obfuscation, report)
    return json_response(await while_connected(request.receive, fold(answer, chunks)), report.headers)
