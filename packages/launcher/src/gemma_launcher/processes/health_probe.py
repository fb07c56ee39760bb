"""Health checks of Triton, the gateway and the playground over HTTP on this machine."""

from types import TracebackType
from typing import Any, Self

import httpx

from gemma_wire import ModelInfo, Options
from gemma_wire.tensors import MODEL


class HealthProbe:
    """Requests to one server; an async context manager. No method raises an HTTP error.

    Args:
        url: such as ``http://127.0.0.1:8000``.
        timeout_s: limit of a request, unless a method is given another one.
        socket: path of the Unix socket that the server listens on; ``None``: the port of ``url``.
    """

    def __init__(self, url: str, timeout_s: float = 3.0, socket: str | None = None) -> None:
        # trust_env: requests to this machine must not go through a proxy.
        # limits: Triton does not shut down before every open connection is closed.
        transport = httpx.AsyncHTTPTransport(
            uds=socket, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._client = httpx.AsyncClient(
            base_url=url, timeout=timeout_s, trust_env=False, transport=transport
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def is_ok(self, path: str, timeout_s: float | None = None) -> bool:
        """Whether ``GET path`` returns 200 within ``timeout_s`` seconds (by default, the probe's limit)."""
        limit = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        try:
            return (await self._client.get(path, timeout=limit)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    async def is_silent(self, path: str) -> bool:
        """Whether the server accepts a connection for ``GET path`` and then does not respond in time.

        A server that does not listen yet, or that returns any response, is not silent.
        """
        try:
            await self._client.get(path)
        except httpx.TimeoutException:
            return True
        except httpx.HTTPError:
            return False
        return False

    async def json(self, path: str) -> dict[str, Any]:
        """The JSON object that ``GET path`` returns with any status; empty when there is none."""
        try:
            content = (await self._client.get(path)).json()
        except (httpx.HTTPError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    async def is_being_replaced(self) -> bool:
        """Whether Triton reports the model as unloaded or loading, because somebody requested that.

        Triton reports a model whose process died as ready.
        """
        try:
            models = (await self._client.post("/v2/repository/index")).json()
            states = [model.get("state") for model in models if model["name"] == MODEL]
            return bool(states) and "READY" not in states
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
            return False

    async def describe(self, timeout_s: float) -> bool:
        """Whether the model in Triton responds to ``op=describe``, which it does even under load."""
        body = Options(op="describe").model_dump(exclude_defaults=True)
        try:
            response = await self._client.post(f"/v2/models/{MODEL}/generate", json=body, timeout=timeout_s)
            ModelInfo.model_validate_json(response.json()["chunk"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False
        return True
