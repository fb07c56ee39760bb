"""Which models are served: the engine's own description, cached for a while."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from openai.types import Model

from gemma_gateway.engine_client import EngineClient
from gemma_gateway.errors import ModelNotFound
from gemma_wire import ModelInfo, WireError
from gemma_wire.tensors import MODEL

HEALTH_MAX_AGE: Final = 1.0
"""Seconds for which a health check reuses a description."""
REQUEST_MAX_AGE: Final = 60.0
"""Seconds for which a request reuses a description, so that it costs one call to the engine and not two."""


@dataclass(frozen=True)
class ResolvedModel:
    """The model that a request is for.

    Args:
        info: the description of the server.
        id: the model's own name among those that the server holds.
    """

    info: ModelInfo
    id: str

    @property
    def option(self) -> str | None:
        """The value of ``wire.Options.model``."""
        return None if self.id == self.info.model else self.id


class ModelRegistry:
    """Asks the engine which models it serves, with at most one call in progress.

    ``aliases`` are pairs of a pattern and the name of the model that serves all names that match it.

    The last description is kept until a newer one has arrived: a model that is slow to describe itself fails
    health checks, but no requests.
    """

    def __init__(
        self,
        engine: EngineClient,
        now: Callable[[], float] = time.monotonic,
        aliases: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._engine = engine
        self._now = now
        self._aliases = aliases
        self._info: ModelInfo | None = None
        self._updated_at = -math.inf
        self._refreshing: asyncio.Task[ModelInfo] | None = None

    async def info(self, max_age: float) -> ModelInfo:
        """The description, at most ``max_age`` seconds old.

        Raises:
            gemma_wire.WireError: the model cannot respond.
        """
        if self._info is not None and self._age <= max_age:
            return self._info
        return await asyncio.shield(self._refresh())

    async def cached(self) -> ModelInfo:
        """The last description.

        If it is older than ``REQUEST_MAX_AGE``, it is returned all the same, while a new one is fetched.
        After ``forget`` the new one is awaited, and the old one returned if the model cannot respond.

        Raises:
            gemma_wire.WireError: the model cannot respond, and never has.
        """
        if self._info is None:
            return await self.info(REQUEST_MAX_AGE)
        if self._age == math.inf:
            with contextlib.suppress(WireError):
                return await self.info(REQUEST_MAX_AGE)
        elif self._age > REQUEST_MAX_AGE:
            self._refresh()
        return self._info

    async def resolve(self, name: str | None) -> ResolvedModel:
        """The model that a client calls ``name``; the main one when the client gives no name.

        Raises:
            ModelNotFound: no model has this name.
            gemma_wire.WireError: the model cannot respond.
        """
        info = await self.cached()
        if name is None:
            return ResolvedModel(info, info.model)
        own = self._own_name(name, info)
        if own not in public_names(info):
            info = await self.info(HEALTH_MAX_AGE)  # another model may have been loaded meanwhile
            own = self._own_name(name, info)
        if own not in public_names(info):
            raise ModelNotFound(name)
        return ResolvedModel(info, own if own in info.variants else info.model)

    def forget(self) -> None:
        """Refresh before the next use: the server may have been restarted with another model."""
        self._updated_at = -math.inf

    def _own_name(self, name: str, info: ModelInfo) -> str:
        """The name without its alias, unless a model is called so."""
        if name in public_names(info):
            return name
        return next((model for pattern, model in self._aliases if fnmatchcase(name, pattern)), name)

    @property
    def _age(self) -> float:
        return self._now() - self._updated_at

    def _refresh(self) -> asyncio.Task[ModelInfo]:
        """The call that is in progress, or a new one."""
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._describe())
            self._refreshing.add_done_callback(_consume_exception)
        return self._refreshing

    async def _describe(self) -> ModelInfo:
        try:
            info = await self._engine.describe()
            self._info, self._updated_at = info, self._now()
            return info
        finally:
            self._refreshing = None


def public_names(info: ModelInfo) -> tuple[str, ...]:
    """The names under which clients may request a model; the main model's own name is the first."""
    return tuple(dict.fromkeys((info.model, MODEL, *info.variants)))


def to_openai_model(info: ModelInfo, name: str) -> Model:
    """An entry of ``/v1/models``. The owner is taken from the hub id; an alias has the owner of its model."""
    owner = (info.model if name == MODEL else name).rpartition("/")[0] or "local"
    # vLLM's fields; the SDK's type accepts fields that it does not know.
    extra: dict[str, Any] = {
        "root": name if name in info.variants else info.model,
        "parent": None,
        "max_model_len": info.context_length,
    }
    return Model(id=name, created=info.created, object="model", owned_by=owner, **extra)


def _consume_exception(task: asyncio.Task[ModelInfo]) -> None:
    """Asyncio logs an error if nobody reads the exception; all callers may have left."""
    if not task.cancelled():
        task.exception()
