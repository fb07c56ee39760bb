"""The ASGI application: middleware, routes and error handlers."""

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
from gemma_gateway.auth import Access, Keys
from gemma_gateway.disconnect import ClientDisconnected
from gemma_gateway.engine_client import EngineClient
from gemma_gateway.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, from_wire
from gemma_gateway.middleware.deadlines import RequestDeadlines, RunningRequests
from gemma_gateway.middleware.limits import BodyLimit, BodyLimits, ConcurrencyLimit
from gemma_gateway.middleware.path_check import PathCheck
from gemma_gateway.model_registry import ModelRegistry
from gemma_gateway.observability import tracing
from gemma_gateway.observability.instrumented_engine import InstrumentedEngine
from gemma_gateway.observability.metrics import GatewayMetrics
from gemma_gateway.observability.request_log import RequestLog
from gemma_gateway.response_store import ResponseStore
from gemma_gateway.responses.background import BackgroundResponses
from gemma_gateway.routes import (
    audio,
    chat,
    completions,
    health,
    info,
    messages,
    metrics,
    models,
    responses,
    stored_responses,
    tokenize,
)
from gemma_gateway.routes.common import Gateway
from gemma_gateway.settings import GatewaySettings


def create_app(settings: GatewaySettings | None = None, engine: EngineClient | None = None) -> FastAPI:
    """The gateway as an ASGI application.

    Args:
        settings: read from the environment when not given.
        engine: runs the model; Triton at the configured address when not given.
    """
    settings = settings or GatewaySettings()
    gateway_metrics, running = GatewayMetrics(), RunningRequests()
    traces = tracing.on() if settings.otel_endpoint else tracing.off()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        client = engine or _triton(settings, gateway_metrics)
        instrumented = InstrumentedEngine(client, gateway_metrics, settings.log_prompts)
        models = ModelRegistry(instrumented, aliases=settings.aliases)
        store = await _open_store(settings)
        background = BackgroundResponses(settings.max_concurrent, settings.request_seconds)
        app.state.gateway = Gateway(settings, instrumented, models, gateway_metrics, background, store)
        try:
            yield
        finally:
            await background.close()
            if store is not None:
                await store.close()
            await instrumented.close()
            await asyncio.to_thread(traces.flush)

    app = FastAPI(
        title="Gemma-Triton",
        lifespan=lifespan,
        openapi_url=None,  # the API is described by OpenAI's own document
        redirect_slashes=False,
        telemetry=traces.config,
        middleware=_middleware(settings, gateway_metrics, running),
        exception_handlers=_HANDLERS,
    )
    app.state.running = running
    for endpoints in (
        chat,
        completions,
        responses,
        stored_responses,
        messages,
        audio,
        models,
        tokenize,
        info,
        health,
        metrics,
    ):
        app.include_router(endpoints.router)
    return app


def _middleware(
    settings: GatewaySettings, gateway_metrics: GatewayMetrics, running: RunningRequests
) -> list[Middleware]:
    """The middleware in the order in which a request passes it.

    CORS is outermost, so that a web page can read errors too. The cheapest checks come first.
    """
    layers = [
        Middleware(RequestLog, gateway_metrics),
        Middleware(Access, Keys(settings.api_keys), settings.hosts),
        Middleware(PathCheck),
        Middleware(RequestDeadlines, running, settings.request_seconds),
    ]
    if settings.origins:
        layers.insert(0, Middleware(CORSMiddleware, **_CORS, allow_origins=settings.origins))
    if settings.max_concurrent:
        layers.append(Middleware(ConcurrencyLimit, settings.max_concurrent))
    bodies = BodyLimits(settings.max_body_bytes, settings.body_seconds)
    uploads = BodyLimits(settings.max_audio_upload_bytes, settings.audio_upload_seconds)
    return [*layers, Middleware(BodyLimit, bodies, uploads)]


_CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST", "DELETE"),
    "allow_headers": ("*",),  # OpenAI's clients send a dozen of their own
    "expose_headers": (
        "x-request-id",
        "request-id",
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


async def _open_store(settings: GatewaySettings) -> ResponseStore | None:
    if settings.store is None:
        return None
    store = ResponseStore(settings.store, settings.store_days, settings.store_bytes)
    await store.open()
    return store


def _triton(settings: GatewaySettings, gateway_metrics: GatewayMetrics) -> EngineClient:
    from gemma_gateway.triton_client import TritonClient  # noqa: PLC0415  (other engines need no gRPC)

    def count(server: str, reason: str) -> None:
        gateway_metrics.routed.labels(server, reason).inc()

    return TritonClient(settings.triton_targets, settings.describe_seconds, count)


async def _api_error(_: Request, error: ApiError) -> Response:
    return error.response()


async def _wire_error(_: Request, error: wire.WireError) -> Response:
    return from_wire(error).response()


async def _client_disconnected(_: Request, __: ClientDisconnected | ClientDisconnect) -> Response:
    return Response(status_code=499)  # for the log; it is never received


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
    ClientDisconnected: _client_disconnected,
    ClientDisconnect: _client_disconnected,  # while the body was being read
    HTTPException: _http_error,
}
