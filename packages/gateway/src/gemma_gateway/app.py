"""The application: every layer put together."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

import gemma_wire as wire
from gemma_gateway.disconnect import ClientGone
from gemma_gateway.engine import Engine
from gemma_gateway.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, from_wire
from gemma_gateway.limits import BodyLimit
from gemma_gateway.routes import chat, health, models
from gemma_gateway.routes.common import Gateway
from gemma_gateway.served import Served
from gemma_gateway.settings import Settings
from gemma_gateway.telemetry import RequestLog


def create_app(settings: Settings | None = None, engine: Engine | None = None) -> FastAPI:
    """The gateway as an ASGI application.

    Args:
        settings: read from the environment when not given.
        engine: what answers; Triton, as the settings say, when not given.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        running = engine or _triton(settings)
        app.state.gateway = Gateway(settings, running, Served(running))
        try:
            yield
        finally:
            await running.close()

    app = FastAPI(
        title="Gemma-Triton",
        lifespan=lifespan,
        openapi_url=None,  # the contract is OpenAI's own document
        redirect_slashes=False,
        middleware=[Middleware(RequestLog), Middleware(BodyLimit, settings.max_body_bytes)],
        exception_handlers=_HANDLERS,
    )
    for family in (chat, models, health):
        app.include_router(family.router)
    return app


def _triton(settings: Settings) -> Engine:
    from gemma_gateway.triton import TritonEngine  # noqa: PLC0415  (other engines need no gRPC)

    return TritonEngine(settings.triton_targets, settings.describe_seconds)


async def _api_error(_: Request, error: ApiError) -> Response:
    return error.response()


async def _wire_error(_: Request, error: wire.WireError) -> Response:
    return from_wire(error).response()


async def _client_gone(_: Request, __: ClientGone | ClientDisconnect) -> Response:
    return Response(status_code=499)  # for the log: nobody will read it


async def _http_error(request: Request, error: HTTPException) -> Response:
    where = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 404:
        return NotFound(f"Unknown URL: {where}.").response()
    if error.status_code == 405:
        return MethodNotAllowed(f"Not allowed: {where}.", headers=error.headers).response()
    return BadRequest(error.detail).response()


_HANDLERS: dict[Any, Any] = {
    ApiError: _api_error,
    wire.WireError: _wire_error,
    ClientGone: _client_gone,
    ClientDisconnect: _client_gone,  # while the body was still coming
    HTTPException: _http_error,
}
