"""The checks before anything is started; every failure is one sentence."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gemma_launcher.addresses import LOOPBACK
from gemma_launcher.checkpoints.resolver import ResolvedCheckpoint, resolve_checkpoint
from gemma_launcher.console import Console
from gemma_launcher.errors import CommandError
from gemma_launcher.paths import PLAYGROUND_NOT_INSTALLED, find_model_repository, is_playground_installed
from gemma_launcher.processes import orphan_cleanup, ports, triton_server
from gemma_launcher.processes.file_limits import FileLimits
from gemma_launcher.processes.run_scope import RunScope
from gemma_launcher.processes.triton_address import TritonAddress, triton_address
from gemma_launcher.settings import PREFIXES, LauncherSettings, without_secrets
from gemma_wire.setting_names import unknown_settings

_GRPC_TARGET = re.compile(r"\s*((dns:(//[^/\s]*/)?|ipv[46]:)?[^/\s]+:\d{1,5}|unix:\S+)\s*")
"""HOST:PORT, optionally with the prefix of a gRPC name resolver."""


@dataclass(frozen=True)
class EmbeddedTriton:
    """What is needed to start the embedded Triton, checked."""

    wheel: triton_server.TritonWheel
    repository: Path
    checkpoint: ResolvedCheckpoint
    address: TritonAddress


def run_preflight_checks(
    settings: LauncherSettings, scope: RunScope, console: Console
) -> EmbeddedTriton | None:
    """Runs all checks, the download of a checkpoint last; ``None`` if a remote Triton is used.

    Raises:
        CommandError: a check failed; the message says what to do.
    """
    for sentence in unknown_settings(os.environ, PREFIXES):
        console.log(sentence, "warning")
    check_triton_url(settings)
    wheel = triton_server.find_wheel() if settings.embedded else None
    if warning := FileLimits.read(settings.api_max_connections).warning:
        console.log(warning, "warning")
    _end_orphans(settings, console)
    ports.check_ports(required_ports(settings))
    if wheel is None:
        return None
    triton_server.check_numpy()
    check_model_control(settings)
    address = triton_address(settings, scope.folder)
    triton_server.prepare_backend_folder(wheel, scope.folder)
    environment = scope.tag_environment(without_secrets(os.environ))
    server_environment = triton_server.server_environment(environment, wheel, scope.folder)
    triton_server.check_server(wheel, scope.folder, server_environment)
    repository = find_model_repository(settings)
    checkpoint = resolve_checkpoint(settings, environment, console.log)
    return EmbeddedTriton(wheel, repository, checkpoint, address)


def check_triton_url(settings: LauncherSettings) -> None:
    """Checks the address of a remote Triton, if one is given.

    Raises:
        CommandError: it is not valid.
    """
    url = settings.triton_grpc_url
    if url and not all(map(_GRPC_TARGET.fullmatch, url.split(","))):
        raise CommandError(f"TRITON_GRPC_URL={url} (--triton-url) is not HOST:PORT of a gRPC port")


def check_model_control(settings: LauncherSettings) -> None:
    """Checks that ``gemma-triton reload`` can reach a Triton with model control.

    Raises:
        CommandError: it cannot.
    """
    if settings.triton_uses_sockets and settings.gemma_triton_model_control:
        raise CommandError(
            "`gemma-triton reload` needs Triton's HTTP port: use GEMMA_TRITON_LISTEN=tcp with --model-control"
        )


def _end_orphans(settings: LauncherSettings, console: Console) -> None:
    """Ends processes on our ports whose launcher and cleanup process were both killed."""
    for binding in required_ports(settings):
        owner = ports.find_port_owner(binding.port) if ports.bind_error(binding.host, binding.port) else None
        if owner and owner.is_orphan:
            console.log(f"ending the processes of a killed Gemma-Triton ({owner.run})", "warning")
            orphan_cleanup.end_run(owner.run)


def without_missing_playground(
    settings: LauncherSettings, log: Callable[[str], None] = lambda _: None
) -> LauncherSettings:
    """The settings, with the playground disabled (and a message logged) if it is not installed."""
    if not settings.gemma_playground or is_playground_installed():
        return settings
    log(f"{PLAYGROUND_NOT_INSTALLED}; serving without it")
    return settings.model_copy(update={"gemma_playground": False})


def required_ports(settings: LauncherSettings) -> tuple[ports.PortBinding, ...]:
    """Every port that a service will listen on."""
    bindings = [ports.PortBinding("the API", settings.api_host, settings.api_port, "--port or API_PORT")]
    if settings.gemma_playground:
        change = "--playground-port or PLAYGROUND_PORT, or disable it with --no-playground"
        bindings.append(playground_binding(settings, change))
    if settings.embedded:
        kinds = ("metrics",) if settings.triton_uses_sockets else ("metrics", "http", "grpc")
        for kind in kinds:
            name = f"gemma_triton_{kind}_port"
            change = f"--triton-{kind}-port or {name.upper()}"
            bindings.append(ports.PortBinding(f"Triton ({kind})", LOOPBACK, getattr(settings, name), change))
    return tuple(bindings)


def playground_binding(settings: LauncherSettings, change: str) -> ports.PortBinding:
    """The playground's port; ``change`` says how to choose another."""
    return ports.PortBinding("the playground", settings.playground_host, settings.playground_port, change)


def assign_free_ports(settings: LauncherSettings) -> LauncherSettings:
    """The settings with every port of 0 replaced by a free one."""
    hosts = {"api_port": settings.api_host, "playground_port": settings.playground_host} | dict.fromkeys(
        ("gemma_triton_http_port", "gemma_triton_grpc_port", "gemma_triton_metrics_port"), LOOPBACK
    )
    chosen: dict[str, int] = {}
    for name, host in hosts.items():
        if getattr(settings, name) == 0:
            chosen[name] = ports.find_free_port(host, exclude=chosen.values())
    return settings.model_copy(update=chosen)
