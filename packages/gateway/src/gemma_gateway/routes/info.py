"""``/version``, ``/load`` and ``/tokenizer_info``, without ``/v1`` as in vLLM: they are not OpenAI's."""

from importlib.metadata import version
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends

from gemma_gateway.routes.common import READ, Gateway, gateway

VERSION: Final = version("gemma-gateway")
router = APIRouter()


@router.api_route("/version", methods=READ, response_model=None)
async def tell_version() -> dict[str, Any]:
    """The version of this server."""
    return {"version": VERSION}


@router.api_route("/load", methods=READ, response_model=None)
async def load(at: Annotated[Gateway, Depends(gateway)]) -> dict[str, Any]:
    """How many generations of this gateway are under way or in the queue."""
    return {"server_load": at.metrics.generations}


@router.api_route("/tokenizer_info", methods=READ, response_model=None)
async def tokenizer_info(at: Annotated[Gateway, Depends(gateway)]) -> dict[str, Any]:
    """The tokenizer's configuration, with the chat template; lm-eval asks for it."""
    return (await at.engine.tokenizer_info()).config
