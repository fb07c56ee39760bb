"""``/version``, ``/load`` and ``/tokenizer_info``: not in OpenAI's API, so without ``/v1``, as in vLLM."""

from importlib.metadata import version
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends

from gemma_gateway.routes.common import READ, Gateway, get_gateway

VERSION: Final = version("gemma-gateway")
router = APIRouter()


@router.api_route("/version", methods=READ, response_model=None)
async def get_version() -> dict[str, Any]:
    """The version of this server."""
    return {"version": VERSION}


@router.api_route("/load", methods=READ, response_model=None)
async def load(gateway: Annotated[Gateway, Depends(get_gateway)]) -> dict[str, Any]:
    """The number of generations of this gateway that are running or queued."""
    return {"server_load": gateway.metrics.generations}


@router.api_route("/tokenizer_info", methods=READ, response_model=None)
async def tokenizer_info(gateway: Annotated[Gateway, Depends(get_gateway)]) -> dict[str, Any]:
    """The tokenizer's configuration, with the chat template; lm-eval requests it."""
    return (await gateway.engine.tokenizer_info()).config
