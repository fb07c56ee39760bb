"""The application: every layer put together."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

import gemma_wire as wire
from gemma_gateway import tracing
from gemma_gateway.auth import Access, Keys
from gemma_gateway.disconnect import ClientGone
from gemma_gateway.engine import Engine
from gemma_gateway.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, from_wire
from gemma_gateway.lifetime import Lifetime, Running
from gemma_gateway.limits import BodyLimit, ConcurrencyLimit
from gemma_gateway.metrics import Metrics
from gemma_gateway.paths import PathCheck
from gemma_gateway.routes import chat, completions, health, info, metrics, models, tokenize
from gemma_gateway.routes.common import Gateway
from gemma_gateway.served import Served
from gemma_gateway.settings import Settings
from gemma_gateway.telemetry import RequestLog
from gemma_gateway.watched import Watched


def create_app(settings: Settings | None = None, engine: Engine | None = None) -> FastAPI:
    """The gateway as an ASGI application.

    Args:
        settings: read from the environment when not given.
        engine: what answers; Triton, as the settings say, when not given.
    """
    settings = settings or Settings()
    collected, running = Metrics(), Running()
    traces = tracing.on() if settings.otel_endpoint else tracing.off()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        watched = Watched(engine or _triton(settings), collected, settings.log_prompts)
        app.state.gateway = Gateway(settings, watched, Served(watched), collected)
        try:
            yield
        finally:
            await watched.close()
            await asyncio.to_thread(traces.flush)

    app = FastAPI(
        title="Gemma-Triton",
        lifespan=lifespan,
        openapi_url=None,  # the contract is OpenAI's own document
        redirect_slashes=False,
        telemetry=traces.config,
        middleware=_layers(settings, collected, running),
        exception_handlers=_HANDLERS,
    )
    app.state.running = running
    for family in (chat, completions, models, tokenize, info, health, metrics):
        app.include_router(family.router)
    return app


def _layers(settings: Settings, collected: Metrics, running: Running) -> list[Middleware]:
    """What a request passes before it reaches its handler, from the outside in.

    The origins are outermost, so that a page may read errors too; what it costs least to refuse comes first.
    """
    layers = [
        Middleware(RequestLog, collected),
        Middleware(Access, Keys(settings.api_keys), settings.hosts),
        Middleware(PathCheck),
        Middleware(Lifetime, running, settings.request_seconds),
    ]
    if settings.origins:
        layers.insert(0, Middleware(CORSMiddleware, **_CORS, allow_origins=settings.origins))
    if settings.max_concurrent:
        layers.append(Middleware(ConcurrencyLimit, settings.max_concurrent))
    return [*layers, Middleware(BodyLimit, settings.max_body_bytes, settings.body_seconds)]


_CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST"),
    "allow_headers": ("*",),  # OpenAI's clients send a dozen of their own
    "expose_headers": (
        "x-request-id",
        "x-schema-valid",
        "x-unenforced-keywords",
        "openai-processing-ms",
        "openai-version",
        "retry-after",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ),
}


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
