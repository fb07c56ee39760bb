"""What all handlers use: the gateway's parts, reading a JSON body, writing a JSON response."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.engine_client import EngineClient
from gemma_gateway.errors import BadRequest
from gemma_gateway.model_registry import ModelRegistry
from gemma_gateway.observability.metrics import GatewayMetrics
from gemma_gateway.request_body import read_body
from gemma_gateway.response_store import ResponseStore
from gemma_gateway.responses.background import BackgroundResponses
from gemma_gateway.settings import GatewaySettings

Body = TypeVar("Body", bound=BaseModel)
READ: Final = ["GET", "HEAD"]
"""Methods of read-only endpoints. The server omits the body of a response to HEAD."""


@dataclass(frozen=True)
class Gateway:
    """The parts of a running gateway; ``app.state.gateway``. ``store`` is ``None`` if nothing is stored."""

    settings: GatewaySettings
    engine: EngineClient
    models: ModelRegistry
    metrics: GatewayMetrics
    background: BackgroundResponses
    store: ResponseStore | None = None


def get_gateway(request: Request) -> Gateway:
    """The gateway that serves this request."""
    running = request.app.state.gateway
    assert isinstance(running, Gateway)
    return running


def json_body(schema: type[Body]) -> Callable[[Request], Awaitable[Body]]:
    """A dependency that reads the request's body as ``schema``.

    Raises:
        ApiError: see ``read_body``; ``BadRequest`` also when the Content-Type is not JSON's.
    """

    async def read(request: Request) -> Body:
        _check_content_type(request.headers.get("content-type", ""))
        return await read_body(request, schema, get_gateway(request).settings.max_body_bytes)

    return read


def _check_content_type(value: str) -> None:
    """A browser sends JSON to another origin only after a CORS preflight, other types without one."""
    kind = value.partition(";")[0].strip().lower()
    if kind != "application/json":
        sentence = f"The Content-Type must be 'application/json', not {kind[:100]!r}."
        raise BadRequest(sentence, code="unsupported_content_type")


def json_response(model: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    """The fields that were set, as JSON; null where it was set, as OpenAI serialises."""
    return Response(model.model_dump_json(exclude_unset=True), headers=headers, media_type="application/json")
