"""What is served: the model's own description, remembered for a while."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from openai.types import Model

from gemma_gateway.engine import Engine
from gemma_gateway.errors import ModelNotFound
from gemma_wire import ModelInfo, WireError
from gemma_wire.tensors import MODEL

FRESH: Final = 1.0
"""Seconds for which a health check believes the last one."""
NAME: Final = 60.0
"""Seconds for which a request believes the description, so that a generation is one call and not two."""


@dataclass(frozen=True)
class Chosen:
    """The model that a request is for.

    Args:
        info: of the server.
        id: the model's own name, of those that the server holds.
    """

    info: ModelInfo
    id: str

    @property
    def option(self) -> str | None:
        """What ``wire.Options.model`` has to say."""
        return None if self.id == self.info.model else self.id


class Served:
    """Asks the engine what it serves, at most once at a time.

    The last description is kept until a newer one has arrived: a model that is slow to describe itself fails
    health checks, and no requests.
    """

    def __init__(self, engine: Engine, now: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._now = now
        self._info: ModelInfo | None = None
        self._told_at = -math.inf
        self._asking: asyncio.Task[ModelInfo] | None = None

    async def info(self, max_age: float) -> ModelInfo:
        """The description, at most ``max_age`` seconds old.

        Raises:
            gemma_wire.WireError: the model cannot answer.
        """
        if self._info is not None and self._age <= max_age:
            return self._info
        return await asyncio.shield(self._refresh())

    async def cached(self) -> ModelInfo:
        """The last description. One older than ``NAME`` is returned too, while a new one is fetched.

        After ``forget`` the new one is waited for, and the old one returned if the model cannot answer.

        Raises:
            gemma_wire.WireError: the model cannot answer, and never did.
        """
        if self._info is None:
            return await self.info(NAME)
        if self._age == math.inf:
            with contextlib.suppress(WireError):
                return await self.info(NAME)
        elif self._age > NAME:
            self._refresh()
        return self._info

    async def resolve(self, name: str | None) -> "Chosen":
        """The model that a client calls ``name``; the first one when it gives no name.

        Raises:
            ModelNotFound: there is none.
            gemma_wire.WireError: the model cannot answer.
        """
        info = await self.cached()
        if name is None:
            return Chosen(info, info.model)
        if name not in names(info):
            info = await self.info(FRESH)  # another model may have been loaded since
        if name not in names(info):
            raise ModelNotFound(name)
        return Chosen(info, name if name in info.variants else info.model)

    def forget(self) -> None:
        """Ask again next time: the server may have been restarted with another model."""
        self._told_at = -math.inf

    @property
    def _age(self) -> float:
        return self._now() - self._told_at

    def _refresh(self) -> asyncio.Task[ModelInfo]:
        """The call that is under way, or a new one."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(_retrieve)
        return self._asking

    async def _ask(self) -> ModelInfo:
        try:
            info = await self._engine.describe()
            self._info, self._told_at = info, self._now()
            return info
        finally:
            self._asking = None


def names(info: ModelInfo) -> tuple[str, ...]:
    """The names under which clients may ask for a model, the first model's own first."""
    return tuple(dict.fromkeys((info.model, MODEL, *info.variants)))


def as_openai(info: ModelInfo, name: str) -> Model:
    """The model as OpenAI lists models; a hub id tells its owner, and the alias's is its model's."""
    owner = (info.model if name == MODEL else name).rpartition("/")[0] or "local"
    # The last three are vLLM's; the SDK's type takes fields that it does not know.
    more: dict[str, Any] = {
        "root": name if name in info.variants else info.model,
        "parent": None,
        "max_model_len": info.context_length,
    }
    return Model(id=name, created=info.created, object="model", owned_by=owner, **more)


def _retrieve(task: asyncio.Task[ModelInfo]) -> None:
    """Looks at the result even when all who asked have left; else asyncio complains."""
    if not task.cancelled():
        task.exception()
