"""OpenTelemetry traces. Without a configured collector they are off, and the SDK is not imported.

FastAPI makes a span for each request, which continues the trace of the client's ``traceparent`` header; the
same header is sent to Triton.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi.telemetry import TelemetryConfig
from opentelemetry import propagate

from gemma_gateway.auth import HEALTH

FLUSH_SECONDS: Final = 1.0
"""How long the shutdown waits for the collector."""
_NOT_TRACED: Final = (*HEALTH, "/metrics")


@dataclass(frozen=True)
class Traces:
    """FastAPI's configuration, and a function that sends the remaining spans at the end."""

    config: TelemetryConfig
    flush: Callable[[], None]


def off() -> Traces:
    """No traces. Without this, FastAPI would make spans as soon as any library sets up the SDK."""
    return Traces({"tracing": False, "metrics": False, "logs": False, "auto_configure": False}, lambda: None)


def on() -> Traces:
    """A span for each request; the SDK reads its own ``OTEL_…`` variables.

    Metrics are in Prometheus; logs are not exported, since they may contain prompts.
    """
    # These imports take half a second and are only needed here.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = os.environ.get("OTEL_SERVICE_NAME", "gemma-gateway")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    config: TelemetryConfig = {
        **off().config,
        "tracing": True,
        "tracer_provider": provider,
        "operation_spans": False,
        "exclude": lambda scope: scope["path"] in _NOT_TRACED,
    }
    return Traces(config, lambda: _within(FLUSH_SECONDS, provider.shutdown))


def headers() -> dict[str, str]:
    """The headers that continue the current trace in Triton (``traceparent``); empty without a trace."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Runs ``work`` in a thread and waits at most so long; a collector may be unreachable."""
    thread = threading.Thread(target=work, name="flush", daemon=True)
    thread.start()
    thread.join(seconds)
