"""``/tokenize`` and ``/detokenize``, without ``/v1`` as in vLLM: they are not OpenAI's."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway import tokens
from gemma_gateway.disconnect import while_connected
from gemma_gateway.routes.common import Gateway, gateway, json_body, json_response
from gemma_gateway.schema.tokenize import DetokenizeRequest, TokenizeRequest

router = APIRouter()


@router.post("/tokenize", response_model=None)
async def tokenize(
    request: Request,
    body: Annotated[TokenizeRequest, Depends(json_body(TokenizeRequest))],
    at: Annotated[Gateway, Depends(gateway)],
) -> Response:
    """Count the tokens of a prompt or a conversation, and tell them."""
    served = await at.served.resolve(body.model)
    work = tokens.tokenize(body, at.engine, at.settings, served.option)
    return json_response(await while_connected(request.receive, work))


@router.post("/detokenize", response_model=None)
async def detokenize(
    request: Request,
    body: Annotated[DetokenizeRequest, Depends(json_body(DetokenizeRequest))],
    at: Annotated[Gateway, Depends(gateway)],
) -> Response:
    """Tell the text that tokens stand for."""
    served = await at.served.resolve(body.model)
    work = tokens.detokenize(body, at.engine, served.option)
    return json_response(await while_connected(request.receive, work))
