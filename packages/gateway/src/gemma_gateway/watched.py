"""What is to be seen of the model's work from here: how long, how much, how it ended."""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from gemma_gateway.engine import Engine
from gemma_gateway.metrics import Metrics
from gemma_wire import (
    Chunk,
    EngineFailure,
    ModelInfo,
    Request,
    Timings,
    TokenizerInfo,
    Tokens,
    Usage,
    WireError,
)

log = logging.getLogger(__name__)
_FILES: Final = {"images", "audio"}


class Watched:
    """An engine, measured while it answers.

    Args:
        log_prompts: write what it is asked into the log, pictures and sounds excepted.
    """

    def __init__(self, engine: Engine, metrics: Metrics, log_prompts: bool = False) -> None:
        self._engine = engine
        self._metrics = metrics
        self._log_prompts = log_prompts

    async def generate(self, request: Request, request_id: str) -> AsyncGenerator[Chunk, None]:
        """See ``Engine``."""
        watch = _Watch(self._metrics)
        if self._log_prompts:
            log.info("%s asks %s", request_id, request.model_dump_json(exclude=_FILES, exclude_defaults=True))
        with self._metrics.running.track_inprogress():
            try:
                async with aclosing(self._engine.generate(request, request_id)) as chunks:
                    async for chunk in chunks:
                        watch.see(chunk)
                        yield chunk
            except Exception as error:
                watch.reason = error.code if isinstance(error, WireError) else EngineFailure.code
                raise
            finally:
                watch.close()

    async def tokens(self, request: Request) -> Tokens:
        """See ``Engine``."""
        return await self._engine.tokens(request)

    async def describe(self) -> ModelInfo:
        """See ``Engine``."""
        return await self._engine.describe()

    async def tokenizer_info(self) -> TokenizerInfo:
        """See ``Engine``."""
        return await self._engine.tokenizer_info()

    async def close(self) -> None:
        """See ``Engine``."""
        await self._engine.close()


class _Watch:
    """Over one generation."""

    def __init__(self, metrics: Metrics) -> None:
        self.reason = "cancelled"
        self._metrics = metrics
        self._began = time.perf_counter()
        self._first: float | None = None
        self._last: dict[int, float] = {}
        self._done = False

    def see(self, chunk: Chunk) -> None:
        now = time.perf_counter()
        if self._first is None:
            self._first = now
            self._metrics.first.observe(now - self._began)
        if chunk.text or chunk.tool_calls:
            if chunk.index in self._last:
                self._metrics.between.observe(now - self._last[chunk.index])
            self._last[chunk.index] = now
        if chunk.finish_reason:
            self._metrics.finished.labels(chunk.finish_reason).inc()
        if chunk.schema_valid is not None:
            self._metrics.schema_answers.labels(str(chunk.schema_valid).lower()).inc()
        if chunk.timings:
            self._see_timings(chunk.timings)
        if chunk.usage:
            self._finish(chunk.usage, now)

    def close(self) -> None:
        if not self._done:
            self._metrics.aborted.labels(self.reason).inc()

    def _see_timings(self, timings: Timings) -> None:
        self._metrics.queued.observe(timings.queued)
        self._metrics.prefill.observe(timings.prefill)
        self._metrics.decode.observe(timings.decode)

    def _finish(self, usage: Usage, now: float) -> None:
        self._done = True
        self._metrics.whole.observe(now - self._began)
        self._metrics.prompt_tokens.inc(usage.prompt_tokens)
        self._metrics.cached_tokens.inc(usage.cached_tokens)
        self._metrics.generation_tokens.inc(usage.completion_tokens)
        self._metrics.request_prompt.observe(usage.prompt_tokens)
        self._metrics.request_generation.observe(usage.completion_tokens)
        choices = len(self._last)
        rest = usage.completion_tokens - choices
        if rest > 0 and self._first is not None:
            self._metrics.per_token.observe((now - self._first) * choices / rest)
