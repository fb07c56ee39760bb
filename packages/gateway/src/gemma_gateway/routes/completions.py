"""``/v1/completions``."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.completions.request import parse
from gemma_gateway.completions.response import CompletionResponseFormat, complete, stream
from gemma_gateway.disconnect import while_connected
from gemma_gateway.generation import generate, merge_streams
from gemma_gateway.json_schema_report import JsonSchemaReport
from gemma_gateway.response_base import ResponseBase
from gemma_gateway.routes.common import Gateway, get_gateway, json_body, json_response
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.sse import open_stream

router = APIRouter()


@router.post("/v1/completions", response_model=None)
async def create(
    request: Request,
    body: Annotated[CompletionRequest, Depends(json_body(CompletionRequest))],
    gateway: Annotated[Gateway, Depends(get_gateway)],
) -> Response:
    """The continuation of one prompt or several, complete or streamed."""
    model = await gateway.models.resolve(body.model)
    prompts = await while_connected(request.receive, parse(body, gateway.engine, model.option))
    form = CompletionResponseFormat(ResponseBase.new("cmpl-", model.id, model.info), body, prompts)
    report, state = JsonSchemaReport(), request.state
    ids = [state.request_id + (f"-{i}" if i else "") for i in range(len(prompts))]
    chunks = merge_streams(
        [
            generate(gateway.engine, gateway.models, prompt.call, request_id, state.cache_salt, report)
            for prompt, request_id in zip(prompts, ids, strict=True)
        ]
    )
    if body.stream:
        ping, padded = gateway.settings.sse_ping_seconds, body.include_obfuscation
        return await open_stream(request.receive, stream(form, chunks), ping, padded, report)
    return json_response(await while_connected(request.receive, complete(form, chunks)), report.headers)
