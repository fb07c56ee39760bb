"""``/health``: whether the process is alive, and whether the model responds."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from gemma_gateway.model_registry import HEALTH_MAX_AGE
from gemma_gateway.routes.common import READ, Gateway, get_gateway

router = APIRouter(prefix="/health")


@router.api_route("", methods=READ, response_model=None)
async def health(gateway: Annotated[Gateway, Depends(get_gateway)]) -> dict[str, Any]:
    """The model's description; 503 with the reason if it does not respond."""
    info = await gateway.models.info(HEALTH_MAX_AGE)
    return {"status": "ok", **info.model_dump(mode="json")}


@router.api_route("/live", methods=READ, response_model=None)
async def live() -> dict[str, Any]:
    """The gateway's process is running; the model is not checked."""
    return {"status": "ok"}


@router.api_route("/ready", methods=READ, response_model=None)
async def ready(gateway: Annotated[Gateway, Depends(get_gateway)]) -> dict[str, Any]:
    """Whether the model responds; 503 with the reason if it does not."""
    await gateway.models.info(HEALTH_MAX_AGE)
    return {"status": "ok"}
