"""What is printed once everything is ready."""

from collections.abc import Mapping
from typing import Any

from gemma_launcher.hub import in_bytes
from gemma_launcher.settings import Settings
from gemma_launcher.triton import LOOPBACK

GIBBERISH = """\
THE WEIGHTS ARE RANDOM: this tiny checkpoint speaks gibberish; it is here to show that everything works.
For the real model:  MODEL_NAME=google/gemma-3n-E4B-it make serve"""


def api_url(settings: Settings) -> str:
    """The gateway's address, as seen from this machine."""
    host = {"0.0.0.0": LOOPBACK, "::": "::1", "": LOOPBACK}.get(settings.api_host, settings.api_host)
    return f"http://[{host}]:{settings.api_port}" if ":" in host else f"http://{host}:{settings.api_port}"


def banner(settings: Settings, health: Mapping[str, Any], seconds: float, random: bool) -> str:
    """The banner, some lines.

    Args:
        settings: for the addresses.
        health: what the gateway's ``/health`` said.
        seconds: how long the start took.
        random: the weights are random.
    """
    url = api_url(settings)
    body = '{"model": "gemma3n", "messages": [{"role": "user", "content": "Hello, how are you?"}]}'
    rows = {
        "API": f"{url}/v1",
        "models": f"{url}/v1/models",
        "health": f"{url}/health",
        "Triton": _triton(settings),
        "model": _model(health),
        "device": _device(health),
        "ready in": f"{seconds:.1f} s",
    }
    lines = [f"  {name:<8}  {text}" for name, text in rows.items()]
    curl = f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n    -d '{body}'"
    warning = ["", *(f"  {line}" for line in GIBBERISH.splitlines())] if random else []
    return "\n".join(["", "  Gemma-Triton is ready", "", *lines, *warning, "", curl, ""])


def _triton(settings: Settings) -> str:
    if not settings.embedded:
        return f"{settings.triton_grpc_url} (gRPC)"
    http, grpc, metrics = (
        settings.gemma_triton_http_port,
        settings.gemma_triton_grpc_port,
        settings.gemma_triton_metrics_port,
    )
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
