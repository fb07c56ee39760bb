"""What is printed once everything is ready."""

from collections.abc import Mapping
from typing import Any

from gemma_launcher.hub import in_bytes
from gemma_launcher.settings import Settings
from gemma_launcher.triton_address import LOOPBACK


def api_url(settings: Settings) -> str:
    """The gateway's address, as seen from this machine."""
    return _seen_from_here(settings.api_host, settings.api_port)


def playground_url(settings: Settings) -> str:
    """The playground's address, as seen from this machine."""
    return _seen_from_here(settings.playground_host, settings.playground_port)


def _seen_from_here(host: str, port: int) -> str:
    host = {"0.0.0.0": LOOPBACK, "::": "::1", "": LOOPBACK}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def banner(
    settings: Settings, health: Mapping[str, Any], seconds: float, note: str, playground_is_up: bool = True
) -> str:
    """The banner, some lines; where to click is the first of them.

    Args:
        settings: for the addresses.
        health: what the gateway's ``/health`` said.
        seconds: how long the start took.
        note: what people must know about the checkpoint; empty: nothing.
        playground_is_up: whether a browser would find the playground already.
    """
    url = api_url(settings)
    body = '{"model": "gemma3n", "messages": [{"role": "user", "content": "Hello, how are you?"}]}'
    moment = "" if playground_is_up else " in a moment"
    click = {"playground": f"{playground_url(settings)}   open it in a browser{moment}"}
    rows = {
        **(click if settings.gemma_playground else {}),
        "API": f"{url}/v1",
        "models": f"{url}/v1/models",
        "health": f"{url}/health",
        "Triton": _triton(settings),
        "model": _model(health),
        "device": _device(health),
        "ready in": f"{seconds:.1f} s",
    }
    lines = [f"  {name:<10}  {text}" for name, text in rows.items()]
    curl = f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n    -d '{body}'"
    noted = ["", *(f"  {line}" for line in note.splitlines())] if note else []
    return "\n".join(["", "  Gemma-Triton is ready", "", *lines, *noted, "", curl, ""])


def _triton(settings: Settings) -> str:
    if not settings.embedded:
        return f"{settings.triton_grpc_url} (gRPC)"
    http, grpc, metrics = (
        settings.gemma_triton_http_port,
        settings.gemma_triton_grpc_port,
        settings.gemma_triton_metrics_port,
    )
    if settings.triton_uses_sockets:
        return f"on Unix sockets for the gateway alone, metrics http://{LOOPBACK}:{metrics}/metrics"
    return f"http://{LOOPBACK}:{http}, gRPC {LOOPBACK}:{grpc}, metrics http://{LOOPBACK}:{metrics}/metrics"


def _model(health: Mapping[str, Any]) -> str:
    context = health.get("context_length")
    return (
        f"{health.get('model', '?')}{f', {context:,} tokens of context' if isinstance(context, int) else ''}"
    )


def _device(health: Mapping[str, Any]) -> str:
    memory = health.get("memory_bytes")
    weights = f", {in_bytes(memory)} of weights" if isinstance(memory, int | float) else ""
    return f"{health.get('device', '?')}, {health.get('dtype', '?')}{weights}"
