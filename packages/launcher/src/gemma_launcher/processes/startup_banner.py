"""The text that is printed when everything is ready."""

from collections.abc import Mapping
from typing import Any

from gemma_launcher.addresses import LOOPBACK, api_url, playground_url
from gemma_launcher.byte_units import format_bytes
from gemma_launcher.settings import LauncherSettings


def banner(
    settings: LauncherSettings,
    health: Mapping[str, Any],
    seconds: float,
    note: str,
    playground_is_ready: bool = True,
) -> str:
    """The banner; its first line is the playground's address.

    Args:
        settings: for the addresses.
        health: the content of the gateway's ``/health``.
        seconds: how long the start took.
        note: what users should know about the checkpoint; may be empty.
        playground_is_ready: whether the playground can be opened already.
    """
    url = api_url(settings)
    body = '{"model": "gemma3n", "messages": [{"role": "user", "content": "Hello, how are you?"}]}'
    soon = "" if playground_is_ready else " in a moment"
    playground = {"playground": f"{playground_url(settings)}   open it in a browser{soon}"}
    rows = {
        **(playground if settings.gemma_playground else {}),
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
    notes = ["", *(f"  {line}" for line in note.splitlines())] if note else []
    return "\n".join(["", "  Gemma-Triton is ready", "", *lines, *notes, "", curl, ""])


def _triton(settings: LauncherSettings) -> str:
    if not settings.embedded:
        return f"{settings.triton_grpc_url} (gRPC)"
    metrics = f"metrics http://{LOOPBACK}:{settings.gemma_triton_metrics_port}/metrics"
    if settings.triton_uses_sockets:
        return f"on Unix sockets that only the gateway uses, {metrics}"
    http, grpc = settings.gemma_triton_http_port, settings.gemma_triton_grpc_port
    return f"http://{LOOPBACK}:{http}, gRPC {LOOPBACK}:{grpc}, {metrics}"


def _model(health: Mapping[str, Any]) -> str:
    length = health.get("context_length")
    context = f", {length:,} tokens of context" if isinstance(length, int) else ""
    return f"{health.get('model', '?')}{context}"


def _device(health: Mapping[str, Any]) -> str:
    memory = health.get("memory_bytes")
    weights = f", {format_bytes(memory)} of weights" if isinstance(memory, int | float) else ""
    return f"{health.get('device', '?')}, {health.get('dtype', '?')}{weights}"
