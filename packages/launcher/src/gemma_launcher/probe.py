"""Asks Triton and the gateway how they are, over HTTP on this machine."""

from types import TracebackType
from typing import Any, Self

import httpx

from gemma_wire import ModelInfo, Options
from gemma_wire.tensors import MODEL


class Probe:
    """Questions to one server; an async context manager. No question raises.

    Args:
        url: ``http://127.0.0.1:8000``.
        timeout_s: an answer that takes longer is none.
        socket: path of the Unix socket that the server listens on; ``None``: the port of ``url``.
    """

    def __init__(self, url: str, timeout_s: float = 3.0, socket: str | None = None) -> None:
        # trust_env: a proxy that is meant for the world must not see what stays on this machine.
        # limits: a Triton that is told to stop first waits for every open connection to be closed.
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
        """Whether ``GET path`` answers 200, in ``timeout_s`` seconds if that is not the probe's own limit."""
        limit = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        try:
            return (await self._client.get(path, timeout=limit)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    async def is_silent(self, path: str) -> bool:
        """Whether the server accepts a connection for ``GET path`` and then says nothing.

        A server that does not listen yet, or answers anything at all, is not silent.
        """
        try:
            await self._client.get(path)
        except httpx.TimeoutException:
            return True
        except httpx.HTTPError:
            return False
        return False

    async def json(self, path: str) -> dict[str, Any]:
        """The JSON object that ``GET path`` answers, whatever the status; empty when there is none."""
        try:
            answer = (await self._client.get(path)).json()
        except (httpx.HTTPError, ValueError):
            return {}
        return answer if isinstance(answer, dict) else {}

    async def is_being_replaced(self) -> bool:
        """Whether Triton says that the model is not there, or not yet: somebody asked for that.

        Of a model whose process died Triton says that it is ready; a Triton that is silent says nothing.
        """
        try:
            models = (await self._client.post("/v2/repository/index")).json()
            states = [model.get("state") for model in models if model["name"] == MODEL]
            return bool(states) and "READY" not in states
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
            return False

    async def describe(self, timeout_s: float) -> bool:
        """Whether the model inside Triton answers ``op=describe``, as it does even when it is busy."""
        question = Options(op="describe").model_dump(exclude_defaults=True)
        try:
            answer = await self._client.post(f"/v2/models/{MODEL}/generate", json=question, timeout=timeout_s)
            ModelInfo.model_validate_json(answer.json()["chunk"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False
        return True
