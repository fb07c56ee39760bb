"""What is looked at before anything starts; every trouble is one sentence."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gemma_launcher import models, ports, reaper, triton
from gemma_launcher.console import Console
from gemma_launcher.errors import CannotStart
from gemma_launcher.models import Checkpoint
from gemma_launcher.open_files import OpenFiles
from gemma_launcher.ownership import Ownership
from gemma_launcher.places import NO_PLAYGROUND, has_playground, model_repository
from gemma_launcher.settings import Settings, without_secrets
from gemma_launcher.triton_address import LOOPBACK, TritonAddress, triton_address

_TARGET = re.compile(r"\s*((dns:(//[^/\s]*/)?|ipv[46]:)?[^/\s]+:\d{1,5}|unix:\S+)\s*")
"""What gRPC connects to: HOST:PORT, or the same behind the name of a resolver."""


@dataclass(frozen=True)
class Embedded:
    """What the embedded Triton needs, found and looked at."""

    wheel: triton.Wheel
    repository: Path
    checkpoint: Checkpoint
    address: TritonAddress


def check(settings: Settings, own: Ownership, console: Console) -> Embedded | None:
    """Passes when serving can begin; none when a Triton elsewhere is used.

    The quick looks come first, the download of a checkpoint last.

    Raises:
        CannotStart: in one sentence, what is wrong and what to do.
    """
    check_target(settings)
    if warning := OpenFiles.read(settings.api_max_connections).warning:
        console.say(warning, "warning")
    _end_orphans(settings, console)
    ports.check(listeners(settings))
    if not settings.embedded:
        return None
    triton.check_numpy()
    check_model_control(settings)
    wheel, address = triton.find_wheel(), triton_address(settings, own.folder)
    triton.prepare(wheel, own.folder)
    environment = own.mark(without_secrets(os.environ))
    triton.check(wheel, own.folder, triton.environment(environment, wheel, own.folder))
    repository = model_repository(settings)
    return Embedded(wheel, repository, models.resolve(settings, environment, console.say), address)


def check_target(settings: Settings) -> None:
    """Passes when the address of a Triton elsewhere is one, or none is given.

    Raises:
        CannotStart: it is none.
    """
    url = settings.triton_grpc_url
    if url and not all(map(_TARGET.fullmatch, url.split(","))):
        raise CannotStart(f"TRITON_GRPC_URL={url} (--triton-url) is not HOST:PORT of a gRPC port")


def check_model_control(settings: Settings) -> None:
    """Passes when ``gemma-triton reload`` can reach a Triton that allows it.

    Raises:
        CannotStart: it could not.
    """
    if settings.triton_uses_sockets and settings.gemma_triton_model_control:
        raise CannotStart(
            "`gemma-triton reload` needs Triton's HTTP port: use GEMMA_TRITON_LISTEN=tcp with --model-control"
        )


def _end_orphans(settings: Settings, console: Console) -> None:
    """Ends what an earlier run left on our ports: it, and its reaper, were killed at once."""
    for listener in listeners(settings):
        found = ports.holder(listener.port) if ports.why_not(listener.host, listener.port) else None
        if found and found.is_orphan:
            console.say(f"ending what a killed Gemma-Triton left behind ({found.run})", "warning")
            reaper.end(found.run)


def without_what_is_missing(settings: Settings, say: Callable[[str], None] = lambda _: None) -> Settings:
    """The settings without a playground where none is installed, which is told."""
    if not settings.gemma_playground or has_playground():
        return settings
    say(f"{NO_PLAYGROUND}; serving without it")
    return settings.model_copy(update={"gemma_playground": False})


def listeners(settings: Settings) -> tuple[ports.Listener, ...]:
    """Every port that will be listened on."""
    outside = [ports.Listener("the API", settings.api_host, settings.api_port, "--port or API_PORT")]
    if settings.gemma_playground:
        change = "--playground-port or PLAYGROUND_PORT, or leave it out with --no-playground"
        outside.append(playground(settings, change))
    if not settings.embedded:
        return tuple(outside)
    embedded = {"metrics": settings.gemma_triton_metrics_port}
    if not settings.triton_uses_sockets:
        embedded |= {"http": settings.gemma_triton_http_port, "grpc": settings.gemma_triton_grpc_port}
    return *outside, *(
        ports.Listener(
            f"Triton ({kind})",
            LOOPBACK,
            port,
            f"--triton-{kind}-port or GEMMA_TRITON_{kind.upper()}_PORT",
        )
        for kind, port in embedded.items()
    )


def playground(settings: Settings, change: str) -> ports.Listener:
    """The playground's port; ``change``: how to choose another."""
    return ports.Listener("the playground", settings.playground_host, settings.playground_port, change)


def with_free_ports(settings: Settings) -> Settings:
    """The settings with every port of 0 replaced by one that is free now."""
    hosts = {"api_port": settings.api_host, "playground_port": settings.playground_host} | dict.fromkeys(
        ("gemma_triton_http_port", "gemma_triton_grpc_port", "gemma_triton_metrics_port"), LOOPBACK
    )
    chosen = {name: ports.find_free(host) for name, host in hosts.items() if getattr(settings, name) == 0}
    return settings.model_copy(update=chosen)
