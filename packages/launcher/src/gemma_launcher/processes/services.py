"""The services (embedded Triton, gateway, playground) and the environment that each of them gets."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gemma_launcher.addresses import LOOPBACK, api_url, is_loopback
from gemma_launcher.checkpoints.resolver import ResolvedCheckpoint
from gemma_launcher.paths import PLAYGROUND_PACKAGE
from gemma_launcher.processes import python_log, triton_log, triton_server
from gemma_launcher.processes.health_probe import HealthProbe
from gemma_launcher.processes.startup_hang_detector import detect_startup_hang
from gemma_launcher.processes.stub_monitor import StubExitRecorder, wait_for_stub_exit
from gemma_launcher.processes.supervisor import Monitor, Service, wait_until_unresponsive
from gemma_launcher.processes.triton_address import TritonAddress
from gemma_launcher.settings import LauncherSettings, without_secrets
from gemma_wire.tensors import MODEL

DESCRIBE_TIMEOUT_S = 10.0
"""The model responds to ``op=describe`` within milliseconds, from a thread of its own, unless its process is
starved or hangs."""

TRITON_GRACE_S = triton_server.EXIT_TIMEOUT_S + 1.0
PYTHON_START_LIMIT_S = 120.0
"""How long the gateway or the playground may take to start."""
GATEWAY_MARGIN_S = 2.0
"""Grace of the gateway in addition to ``API_SHUTDOWN_SECONDS``, for final error events and its own exit."""

PLAYGROUND_GRACE_S = 3.0
PLAYGROUND_COMMAND: Final = (sys.executable, "-m", PLAYGROUND_PACKAGE)
"""Without arguments: other users can see these, but not the environment, which has the API key."""

UNRESPONSIVE: Final = "hangs: it does not respond to health checks"
LIVENESS_TIMEOUT_S: Final = 5.0
PLAYGROUND_PROBE_INTERVAL_S = 5.0
"""Longer than that of the others, because its page is large."""


def triton_service(
    command: tuple[str, ...],
    environment: Mapping[str, str],
    probe: HealthProbe,
    settings: LauncherSettings,
    on_exit: Callable[[], None],
) -> Service:
    """The embedded Triton.

    It is restarted when it ends, when its stub dies, when it does not respond to health checks, or when the
    model does not respond to ``op=describe``. While it loads the model it does not listen; it is then
    restarted when it accepts connections without responding, or when its processes are inactive for
    ``startup_hang_detector.STALL_LIMIT_S`` seconds.
    """

    async def is_live() -> bool:
        return await probe.is_ok("/v2/health/live")

    async def describes() -> bool:
        return await probe.describe(DESCRIBE_TIMEOUT_S) or await probe.is_being_replaced()

    async def is_silent() -> bool:
        return await probe.is_silent("/v2/health/live")

    monitors: tuple[Monitor, ...] = (
        lambda child: wait_for_stub_exit(child, probe.is_being_replaced),
        lambda _: wait_until_unresponsive(is_live, UNRESPONSIVE),
        lambda _: wait_until_unresponsive(describes, "hangs: the model does not respond"),
    )
    stub_exits = StubExitRecorder()
    return Service(
        name="triton",
        startup_task="Triton to load the model",
        command=command,
        environment=environment,
        is_ready=lambda: probe.is_ok(f"/v2/models/{MODEL}/ready"),
        start_limit_s=settings.gemma_triton_start_limit,
        grace_s=TRITON_GRACE_S,
        parse_output=triton_log.TritonLogParser(verbose=settings.triton_log_level > 0),
        explain_failure=lambda lines: stub_exits.explain(triton_log.failure_reason(lines)),
        permanent_error=triton_log.permanent_error,
        monitors=monitors,
        startup_monitors=(lambda child: detect_startup_hang(child, is_silent),),
        on_startup_poll=stub_exits.record,
        on_exit=on_exit,
    )


def gateway_service(
    environment: Mapping[str, str], probe: HealthProbe, settings: LauncherSettings
) -> Service:
    """The gateway. It stays up and returns errors while Triton is down."""
    command = (sys.executable, "-m", "gemma_gateway")
    grace_s = settings.api_shutdown_seconds + GATEWAY_MARGIN_S
    return _python_service("gateway", command, environment, probe, "/health/live", grace_s)


def playground_service(environment: Mapping[str, str], probe: HealthProbe) -> Service:
    """The playground. It stays up and shows errors while the gateway is down."""
    service = _python_service(
        "playground",
        PLAYGROUND_COMMAND,
        environment,
        probe,
        "/",
        PLAYGROUND_GRACE_S,
        PLAYGROUND_PROBE_INTERVAL_S,
    )
    service.required = False
    return service


def _python_service(
    name: str,
    command: tuple[str, ...],
    environment: Mapping[str, str],
    probe: HealthProbe,
    path: str,
    grace_s: float,
    interval_s: float = 1.0,
) -> Service:
    """A Python program that is healthy while ``GET path`` returns 200."""

    async def is_live() -> bool:
        return await probe.is_ok(path, LIVENESS_TIMEOUT_S)

    return Service(
        name=name,
        startup_task=f"the {name} to start",
        command=command,
        environment=environment,
        is_ready=is_live,
        monitors=(lambda _: wait_until_unresponsive(is_live, UNRESPONSIVE, interval_s=interval_s),),
        start_limit_s=PYTHON_START_LIMIT_S,
        grace_s=grace_s,
        parse_output=python_log.parse_line,
        explain_failure=python_log.failure_reason,
        permanent_error=python_log.permanent_error,
    )


def triton_environment(
    base: Mapping[str, str],
    wheel: triton_server.TritonWheel,
    folder: Path,
    settings: LauncherSettings,
    checkpoint: ResolvedCheckpoint,
) -> dict[str, str]:
    """The environment of Triton and the model."""
    return {
        **triton_server.server_environment(without_secrets(base, "HF_TOKEN"), wheel, folder),
        **triton_server.visible_devices(settings, base),
        "MODEL_NAME": checkpoint.name,
        "GEMMA_CHECKPOINT": str(checkpoint.folder),
    }


def gateway_environment(
    base: Mapping[str, str], settings: LauncherSettings, embedded: TritonAddress | None
) -> dict[str, str]:
    """The environment of the gateway, which is exposed to the network and does not get the hub token.

    Args:
        base: the launcher's environment.
        settings: where it listens, and the address of a remote Triton.
        embedded: the address of the embedded Triton, if there is one.
    """
    loopback = [LOOPBACK, "localhost", base.get("no_grpc_proxy") or base.get("no_proxy", "")]
    addresses = {"TRITON_GRPC_URL": settings.triton_grpc_url}
    if embedded:
        addresses = {
            "TRITON_GRPC_URL": embedded.grpc,
            # gRPC would use an http_proxy even for loopback addresses.
            "no_grpc_proxy": ",".join(filter(None, loopback)),
        }
    return {
        **without_secrets(base, "API_KEYS", "API_KEYS_FILE", "OTEL_EXPORTER_OTLP_HEADERS"),
        **{name: value for name, value in addresses.items() if value},
        "API_HOST": settings.api_host,
        "API_PORT": str(settings.api_port),
        "API_SHUTDOWN_SECONDS": str(settings.api_shutdown_seconds),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
    }


def playground_environment(base: Mapping[str, str], settings: LauncherSettings, url: str) -> dict[str, str]:
    """The environment of the playground.

    Args:
        base: the launcher's environment; its ``OPENAI_API_KEY`` is the one for ``url``.
        settings: where it listens.
        url: base URL of the API that it uses.
    """
    local = [LOOPBACK, "localhost", urlsplit(api_url(settings)).hostname or ""]
    no_proxy = [*dict.fromkeys(local), base.get("no_proxy") or base.get("NO_PROXY", "")]
    return {
        **without_secrets(base, "OPENAI_API_KEY"),
        "OPENAI_BASE_URL": url,
        "PLAYGROUND_HOST": settings.playground_host,
        "PLAYGROUND_PORT": str(settings.playground_port),
        "no_proxy": ",".join(filter(None, no_proxy)),
        "PYTHONUNBUFFERED": "1",
    }


def with_api_key(base: Mapping[str, str], settings: LauncherSettings) -> dict[str, str]:
    """The environment with a key of the gateway as ``OPENAI_API_KEY``.

    If the gateway has several keys, ``OPENAI_API_KEY`` is kept if it is one of them and removed otherwise: a
    key for another server must not reach this one.
    """
    keys = _api_keys(settings)
    preferred = settings.openai_api_key.get_secret_value() if settings.openai_api_key else ""
    matching = keys if len(keys) == 1 else keys & {preferred}
    others = {name: value for name, value in base.items() if name != "OPENAI_API_KEY"}
    return {**others, "OPENAI_API_KEY": matching.pop()} if matching else others


def api_key_warning(base: Mapping[str, str], settings: LauncherSettings) -> str:
    """A warning about the playground's key, which is in ``base``; may be empty."""
    if "OPENAI_API_KEY" not in base:
        several = "the API has several keys: set OPENAI_API_KEY to the one that the playground should use"
        return several if _api_keys(settings) else ""
    host = settings.playground_host
    return "" if is_loopback(host) else f"anyone who reaches the playground at {host} uses the API's key"


def _api_keys(settings: LauncherSettings) -> set[str]:
    """All keys of the gateway, which itself reports a file that cannot be read."""
    keys = settings.api_keys.get_secret_value().split(",") if settings.api_keys else []
    with suppress(OSError, UnicodeDecodeError):
        if settings.api_keys_file:
            lines = settings.api_keys_file.read_text(encoding="utf-8").splitlines()
            keys += [line for line in lines if not line.strip().startswith("#")]
    return {key.strip() for key in keys} - {""}
