"""Settings, and the gateway as a process."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest
from pydantic import ValidationError

from gemma_gateway import __main__ as gateway_main
from gemma_gateway.__main__ import main
from gemma_gateway.settings import GatewaySettings, variable

COMMAND = [sys.executable, "-m", "gemma_gateway"]


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_HOST", "API_PORT", "TRITON_GRPC_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = GatewaySettings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.triton_targets == ("localhost:8001",)
    assert (settings.max_body_bytes, settings.max_images) == (64 * 2**20, 16)
    assert (settings.max_image_bytes, settings.max_image_pixels) == (32 * 2**20, 50_000_000)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "9000")
    monkeypatch.setenv("API_MAX_IMAGES", "")
    monkeypatch.setenv("TRITON_GRPC_URL", "a:1, b:2,")
    settings = GatewaySettings()
    assert (settings.port, settings.max_images) == (9000, 16)
    assert settings.triton_targets == ("a:1", "b:2")


def test_dns_target() -> None:
    assert GatewaySettings(triton_grpc_url="dns:///triton:8001").triton_targets == ("dns:///triton:8001",)


def test_settings_are_frozen_and_described() -> None:
    with pytest.raises(ValidationError):
        GatewaySettings().port = 1  # type: ignore[misc]
    assert all(field.description for field in GatewaySettings.model_fields.values())


def test_an_invalid_setting_is_reported_in_one_line() -> None:
    result = subprocess.run(
        COMMAND, env=os.environ | {"API_PORT": "many"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("gemma-gateway: API_PORT: Input should be a valid integer")


@pytest.mark.parametrize("name", ["API_MAX_BODY_BYTES", "API_MAX_IMAGE_BYTES", "API_MAX_AUDIO_BYTES"])
def test_sizes_have_units(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "512MB")
    assert getattr(GatewaySettings(), name.removeprefix("API_").lower()) == 512_000_000
    monkeypatch.setenv(name, "8")
    with pytest.raises(SystemExit, match=f"^gemma-gateway: {name}: 8 has no unit and would be 8 bytes"):
        gateway_main._settings()


def test_errors_name_the_environment_variable() -> None:
    names = {variable(field) for field in GatewaySettings.model_fields}
    assert {"API_PORT", "TRITON_GRPC_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"} <= names


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, gemma_gateway.app, gemma_gateway.http_server.server, gemma_gateway.triton_client;"
        "print([name for name in ('torch', 'transformers', 'tokenizers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_signal_during_the_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 of a container only receives signals for which it has a handler."""
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr(
        "gemma_gateway.observability.logs.configure_logging", lambda *_: signal.raise_signal(signal.SIGTERM)
    )
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)
    assert ended.value.code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_starts_without_triton_and_ends_on_sigterm(number: signal.Signals) -> None:
    environment = os.environ | {"API_PORT": "0", "TRITON_GRPC_URL": "127.0.0.1:1", "API_WORKERS": "2"}
    process = await asyncio.create_subprocess_exec(
        *COMMAND, env=environment, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            start = b""
            while b"running on http://127.0.0.1" not in start:
                start += await process.stderr.readline()
        told = time.monotonic()
        process.send_signal(number)
        log, _ = await asyncio.gather(process.stderr.read(), process.wait())
    finally:
        if process.returncode is None:
            process.kill()
    assert time.monotonic() - told < 5
    assert process.returncode == 0
    assert b"Traceback" not in log
    assert start.count(b"API_WORKERS is not a setting and has no effect") == 1
