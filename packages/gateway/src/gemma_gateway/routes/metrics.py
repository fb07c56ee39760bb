"""``/metrics``: the gateway's metrics for Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.routes.common import READ, Gateway, get_gateway

router = APIRouter()


@router.api_route("/metrics", methods=READ, response_model=None)
async def read(request: Request, gateway: Annotated[Gateway, Depends(get_gateway)]) -> Response:
    """The gateway's metrics; those of the model are at Triton's metrics port."""
    body, media_type = gateway.metrics.render(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type})
