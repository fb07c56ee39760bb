"""OpenTelemetry traces, which FastAPI makes; off, and the SDK not even imported, unless there is a collector.

Each request is a span, which continues the trace of the client's ``traceparent`` header, and Triton is told
the same way to continue it.
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
"""How long the end of the process waits for the collector."""
_NOT_TRACED: Final = (*HEALTH, "/metrics")


@dataclass(frozen=True)
class Traces:
    """What FastAPI is to do, and what is to be called at the end, which sends what has not been sent yet."""

    config: TelemetryConfig
    flush: Callable[[], None]


def off() -> Traces:
    """No traces. FastAPI itself would begin to make some as soon as any library sets up the SDK."""
    return Traces({"tracing": False, "metrics": False, "logs": False, "auto_configure": False}, lambda: None)


def on() -> Traces:
    """A span for each request; the SDK reads its own ``OTEL_…`` variables.

    Metrics are Prometheus', and logs could hold prompts.
    """
    # Half a second of imports, which who makes no traces need not pay.
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
    """What is sent along with a question, so that its trace goes on (``traceparent``); empty without one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Does it, and does not wait longer: a collector that is gone must not hold up the end."""
    thread = threading.Thread(target=work, name="flush", daemon=True)
    thread.start()
    thread.join(seconds)
