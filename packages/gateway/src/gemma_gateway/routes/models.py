"""``/v1/models``."""

from typing import Annotated

from fastapi import APIRouter, Depends
from openai.pagination import SyncPage
from openai.types import Model
from starlette.responses import Response

from gemma_gateway.model_registry import public_names, to_openai_model
from gemma_gateway.routes.common import READ, Gateway, get_gateway, json_response

router = APIRouter(prefix="/v1/models")


@router.api_route("", methods=READ, response_model=None)
async def index(gateway: Annotated[Gateway, Depends(get_gateway)]) -> Response:
    """Every model, under each of its names."""
    info = await gateway.models.cached()
    return json_response(
        SyncPage[Model](object="list", data=[to_openai_model(info, name) for name in public_names(info)])
    )


@router.api_route("/{name:path}", methods=READ, response_model=None)
async def retrieve(name: str, gateway: Annotated[Gateway, Depends(get_gateway)]) -> Response:
    """A model, by any of its names."""
    return json_response(to_openai_model((await gateway.models.resolve(name)).info, name))
