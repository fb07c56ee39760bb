"""Measures the engine: durations, token counts, and how generations end."""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from gemma_gateway.engine_client import EngineClient
from gemma_gateway.observability.metrics import GatewayMetrics
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


class InstrumentedEngine:
    """An engine client that records metrics for each generation.

    Args:
        log_prompts: log the requests, without images and audio.
    """

    def __init__(self, engine: EngineClient, metrics: GatewayMetrics, log_prompts: bool = False) -> None:
        self._engine = engine
        self._metrics = metrics
        self._log_prompts = log_prompts

    async def generate(self, request: Request, request_id: str) -> AsyncGenerator[Chunk, None]:
        """See ``EngineClient``."""
        measurement = _Measurement(self._metrics)
        if self._log_prompts:
            log.info(
                "%s request %s", request_id, request.model_dump_json(exclude=_FILES, exclude_defaults=True)
            )
        with self._metrics.running.track_inprogress():
            try:
                async with aclosing(self._engine.generate(request, request_id)) as chunks:
                    async for chunk in chunks:
                        measurement.update(chunk)
                        yield chunk
            except Exception as error:
                measurement.reason = error.code if isinstance(error, WireError) else EngineFailure.code
                raise
            finally:
                measurement.close()

    async def tokens(self, request: Request) -> Tokens:
        """See ``EngineClient``."""
        return await self._engine.tokens(request)

    async def describe(self) -> ModelInfo:
        """See ``EngineClient``."""
        return await self._engine.describe()

    async def tokenizer_info(self) -> TokenizerInfo:
        """See ``EngineClient``."""
        return await self._engine.tokenizer_info()

    async def close(self) -> None:
        """See ``EngineClient``."""
        await self._engine.close()


class _Measurement:
    """The metrics of one generation."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self.reason = "cancelled"
        self._metrics = metrics
        self._began = time.perf_counter()
        self._first: float | None = None
        self._last: dict[int, float] = {}
        self._done = False

    def update(self, chunk: Chunk) -> None:
        now = time.perf_counter()
        if self._first is None:
            self._first = now
            self._metrics.time_to_first_token.observe(now - self._began)
        if chunk.text or chunk.tool_calls:
            if chunk.index in self._last:
                self._metrics.inter_token_latency.observe(now - self._last[chunk.index])
            self._last[chunk.index] = now
        if chunk.finish_reason:
            self._metrics.finished.labels(chunk.finish_reason).inc()
        if chunk.schema_valid is not None:
            self._metrics.schema_answers.labels(str(chunk.schema_valid).lower()).inc()
        if chunk.timings:
            self._record_timings(chunk.timings)
        if chunk.usage:
            self._finish(chunk.usage, now)

    def close(self) -> None:
        if not self._done:
            self._metrics.aborted.labels(self.reason).inc()

    def _record_timings(self, timings: Timings) -> None:
        self._metrics.queue_time.observe(timings.queued)
        self._metrics.prefill_time.observe(timings.prefill)
        self._metrics.decode_time.observe(timings.decode)

    def _finish(self, usage: Usage, now: float) -> None:
        self._done = True
        self._metrics.e2e_latency.observe(now - self._began)
        self._metrics.prompt_tokens.inc(usage.prompt_tokens)
        self._metrics.cached_tokens.inc(usage.cached_tokens)
        self._metrics.generation_tokens.inc(usage.completion_tokens)
        self._metrics.request_prompt.observe(usage.prompt_tokens)
        self._metrics.request_generation.observe(usage.completion_tokens)
        choices = len(self._last)
        rest = usage.completion_tokens - choices
        if rest > 0 and self._first is not None:
            self._metrics.time_per_output_token.observe((now - self._first) * choices / rest)
