"""``/v1/models``."""

from typing import Annotated

from fastapi import APIRouter, Depends
from openai.pagination import SyncPage
from openai.types import Model
from starlette.responses import Response

from gemma_gateway.routes.common import READ, Gateway, gateway, json_response
from gemma_gateway.served import as_openai, names

router = APIRouter(prefix="/v1/models")


@router.api_route("", methods=READ, response_model=None)
async def index(at: Annotated[Gateway, Depends(gateway)]) -> Response:
    """Every model, under each of its names."""
    info = await at.served.cached()
    return json_response(SyncPage[Model](object="list", data=[as_openai(info, name) for name in names(info)]))


@router.api_route("/{name:path}", methods=READ, response_model=None)
async def retrieve(name: str, at: Annotated[Gateway, Depends(gateway)]) -> Response:
    """A model, by any of its names."""
    return json_response(as_openai((await at.served.resolve(name)).info, name))
