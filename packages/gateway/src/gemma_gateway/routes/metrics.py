"""``/metrics``: for Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.routes.common import READ, Gateway, gateway

router = APIRouter()


@router.api_route("/metrics", methods=READ, response_model=None)
async def read(request: Request, at: Annotated[Gateway, Depends(gateway)]) -> Response:
    """The gateway's own; the model's are at Triton's metrics port."""
    body, media_type = at.metrics.render(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type})
