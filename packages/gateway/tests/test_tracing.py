"""Traces: off and not imported, or sent, continued and passed on."""

import asyncio
import subprocess
import sys

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from packages.gateway.tests.conftest import chat
from packages.gateway.tests.triton.conftest import FakeTriton, listening

from gemma_gateway.app import create_app
from gemma_gateway.observability import tracing
from gemma_gateway.settings import GatewaySettings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def test_nothing_is_imported_when_it_is_off() -> None:
    code = (
        "import sys, gemma_gateway.__main__, gemma_gateway.triton_client;"
        "from gemma_gateway.app import create_app; from gemma_gateway.settings import GatewaySettings;"
        "create_app(GatewaySettings(otel_endpoint=''));"
        "print([name for name in sys.modules if 'opentelemetry.sdk' in name or '.otlp' in name])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_endpoint_of_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    assert GatewaySettings().otel_endpoint == ""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert GatewaySettings().otel_endpoint == "http://collector:4318"


class Collector:
    """Receives OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.names: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        self._take(ExportTraceServiceRequest.FromString(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    def _take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            self.names |= {entry.value.string_value for entry in resource.resource.attributes}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]


async def test_a_trace_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the client's header to Triton's metadata; both belong to the same trace in the collector."""
    collector, triton = Collector(), FakeTriton()
    server = await asyncio.start_server(collector.serve, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for name, value in (("ENDPOINT", endpoint), ("COMPRESSION", "none")):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    async with server, listening(triton) as (target, _):
        app = create_app(GatewaySettings(triton_grpc_url=target))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                await client.get("/health/live")
                response = await client.post(
                    "/v1/chat/completions", json=chat(stream=True), headers={"traceparent": PARENT}
                )
        assert response.status_code == 200
    (span,) = collector.spans
    assert span.trace_id.hex() == TRACE
    assert span.name == "POST /v1/chat/completions"
    assert "gemma-gateway" in collector.names
    assert [given.split("-")[1] for given in triton.traceparents] == [TRACE]
    assert tracing.headers() == {}
