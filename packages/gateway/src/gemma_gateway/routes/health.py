"""``/health``: whether the process lives, and whether the model answers."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from gemma_gateway.routes.common import READ, Gateway, gateway
from gemma_gateway.served import FRESH

router = APIRouter(prefix="/health")


@router.api_route("", methods=READ, response_model=None)
async def health(at: Annotated[Gateway, Depends(gateway)]) -> dict[str, Any]:
    """What the model says about itself; 503 with the reason when it does not answer."""
    info = await at.served.info(FRESH)
    return {"status": "ok", **info.model_dump(mode="json")}


@router.api_route("/live", methods=READ, response_model=None)
async def live() -> dict[str, Any]:
    """The gateway's process runs; says nothing about the model."""
    return {"status": "ok"}


@router.api_route("/ready", methods=READ, response_model=None)
async def ready(at: Annotated[Gateway, Depends(gateway)]) -> dict[str, Any]:
    """The model answers; 503 with the reason when it does not."""
    await at.served.info(FRESH)
    return {"status": "ok"}
