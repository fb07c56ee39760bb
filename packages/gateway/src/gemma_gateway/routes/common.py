"""What the handlers share."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.body import read_body
from gemma_gateway.engine import Engine
from gemma_gateway.errors import BadRequest
from gemma_gateway.metrics import Metrics
from gemma_gateway.served import Served
from gemma_gateway.settings import Settings

Body = TypeVar("Body", bound=BaseModel)
READ: Final = ["GET", "HEAD"]
"""The methods of what is only read; the server leaves out the body of an answer to HEAD."""


@dataclass(frozen=True)
class Gateway:
    """What a running gateway is made of; ``app.state.gateway``."""

    settings: Settings
    engine: Engine
    served: Served
    metrics: Metrics


def gateway(request: Request) -> Gateway:
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
        return await read_body(request, schema, gateway(request).settings.max_body_bytes)

    return read


def _check_content_type(value: str) -> None:
    """A browser sends JSON to another site only after that site has agreed, anything else at once."""
    kind = value.partition(";")[0].strip().lower()
    if kind != "application/json":
        sentence = f"The Content-Type must be 'application/json', not {kind[:100]!r}."
        raise BadRequest(sentence, code="unsupported_content_type")


def json_response(model: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    """What was set, as JSON: the way OpenAI serialises, nulls where they were given."""
    return Response(model.model_dump_json(exclude_unset=True), headers=headers, media_type="application/json")
