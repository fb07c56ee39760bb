"""``/tokenize`` and ``/detokenize``: not in OpenAI's API, so without ``/v1``, as in vLLM."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway import tokenization
from gemma_gateway.disconnect import while_connected
from gemma_gateway.routes.common import Gateway, get_gateway, json_body, json_response
from gemma_gateway.schema.tokenize import DetokenizeRequest, TokenizeRequest

router = APIRouter()


@router.post("/tokenize", response_model=None)
async def tokenize(
    request: Request,
    body: Annotated[TokenizeRequest, Depends(json_body(TokenizeRequest))],
    gateway: Annotated[Gateway, Depends(get_gateway)],
) -> Response:
    """The tokens of a prompt or a conversation, and their number."""
    model = await gateway.models.resolve(body.model)
    work = tokenization.tokenize(body, gateway.engine, gateway.settings, model.option)
    return json_response(await while_connected(request.receive, work))


@router.post("/detokenize", response_model=None)
async def detokenize(
    request: Request,
    body: Annotated[DetokenizeRequest, Depends(json_body(DetokenizeRequest))],
    gateway: Annotated[Gateway, Depends(get_gateway)],
) -> Response:
    """The text of tokens."""
    model = await gateway.models.resolve(body.model)
    work = tokenization.detokenize(body, gateway.engine, model.option)
    return json_response(await while_connected(request.receive, work))
