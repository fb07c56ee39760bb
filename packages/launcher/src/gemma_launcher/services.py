"""The services: the embedded Triton, the gateway, the playground."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gemma_launcher import glog, pylog, triton
from gemma_launcher.banner import api_url
from gemma_launcher.models import Checkpoint
from gemma_launcher.places import PLAYGROUND
from gemma_launcher.ports import is_loopback
from gemma_launcher.probe import Probe
from gemma_launcher.settings import Settings, without_secrets
from gemma_launcher.stall import hangs_while_starting
from gemma_launcher.stub import StubDeaths, stub_died
from gemma_launcher.supervisor import Service, Watch, silent
from gemma_launcher.triton_address import LOOPBACK, TritonAddress
from gemma_wire.tensors import MODEL

DESCRIBE_S = 10.0
"""How long the model may take to say what it is. It answers from another thread than the one that
computes, within milliseconds; this long it can only be when the process is starved or stuck."""

GATEWAY_START_LIMIT_S = 120.0
TRITON_GRACE_S = triton.EXIT_TIMEOUT_S + 1.0
GATEWAY_MARGIN_S = 2.0
"""Beyond its patience with open answers: for their last words, and for its own end."""

PLAYGROUND_START_LIMIT_S = 120.0
PLAYGROUND_GRACE_S = 3.0
PLAYGROUND_COMMAND: Final = (sys.executable, "-m", PLAYGROUND)
"""No argument: what it needs is in its environment, where other users do not see its key."""

UNANSWERED: Final = "hangs: it answers no health question"
LIVE_S: Final = 5.0
"""How long the gateway or the playground may take for an answer that costs nothing."""

PLAYGROUND_LOOK_EVERY_S = 5.0
"""Its page is large."""


def triton_service(
    command: tuple[str, ...],
    environment: Mapping[str, str],
    probe: Probe,
    settings: Settings,
    clean: Callable[[], None],
) -> Service:
    """The embedded Triton.

    It is in trouble when it ends, when its stub dies, when it answers no health question (it is stopped
    or stuck), or when the model answers no ``op=describe`` (the stub is stopped or stuck). While it loads
    the model it does not listen at all; then it is in trouble when it accepts connections and does not
    answer, or when its processes do nothing for ``stall.STALL_LIMIT_S`` seconds.
    """

    async def is_live() -> bool:
        return await probe.is_ok("/v2/health/live")

    async def describes() -> bool:
        return await probe.describe(DESCRIBE_S) or await probe.is_being_replaced()

    async def is_silent() -> bool:
        return await probe.is_silent("/v2/health/live")

    watches: tuple[Watch, ...] = (
        lambda child: stub_died(child, probe.is_being_replaced),
        lambda _: silent(is_live, UNANSWERED),
        lambda _: silent(describes, "hangs: the model inside it does not answer"),
    )
    deaths = StubDeaths()
    return Service(
        name="triton",
        awaited="Triton to load the model",
        command=command,
        environment=environment,
        is_up=lambda: probe.is_ok(f"/v2/models/{MODEL}/ready"),
        start_limit_s=settings.gemma_triton_start_limit,
        grace_s=TRITON_GRACE_S,
        read=glog.Reader(verbose=settings.triton_log_level > 0),
        explain=lambda lines: deaths.explain(glog.why(lines)),
        watches=watches,
        start_watches=(lambda child: hangs_while_starting(child, is_silent),),
        look=deaths.look,
        clean=clean,
    )


def triton_environment(
    base: Mapping[str, str], wheel: triton.Wheel, folder: Path, settings: Settings, checkpoint: Checkpoint
) -> dict[str, str]:
    """What Triton and the model find around them: where the checkpoint is, and how to call it."""
    return {
        **triton.environment(without_secrets(base, "HF_TOKEN"), wheel, folder),
        **triton.visible_devices(settings, base),
        "MODEL_NAME": checkpoint.name,
        "GEMMA_CHECKPOINT": str(checkpoint.folder),
    }


def gateway_service(environment: Mapping[str, str], probe: Probe, settings: Settings) -> Service:
    """The gateway. It stays up while Triton is down, and says so to those who ask."""

    async def is_live() -> bool:
        return await probe.is_ok("/health/live", LIVE_S)

    return Service(
        name="gateway",
        awaited="the gateway to start",
        command=(sys.executable, "-m", "gemma_gateway"),
        environment=environment,
        is_up=is_live,
        watches=(lambda _: silent(is_live, UNANSWERED),),
        start_limit_s=GATEWAY_START_LIMIT_S,
        grace_s=settings.api_shutdown_seconds + GATEWAY_MARGIN_S,
        read=pylog.read,
        explain=pylog.why,
    )


def gateway_environment(
    base: Mapping[str, str], settings: Settings, embedded: TritonAddress | None
) -> dict[str, str]:
    """What the gateway finds around it. It talks to the world, and has no use for the hub token.

    Args:
        base: of this process.
        settings: where it listens, and the address of a Triton elsewhere.
        embedded: the address of the embedded Triton, if there is one.
    """
    loopback = [LOOPBACK, "localhost", base.get("no_grpc_proxy") or base.get("no_proxy", "")]
    addresses = {"TRITON_GRPC_URL": settings.triton_grpc_url}
    if embedded:
        addresses = {
            "TRITON_GRPC_URL": embedded.grpc,
            # gRPC would send even loopback traffic through an http_proxy.
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


def playground_service(environment: Mapping[str, str], probe: Probe) -> Service:
    """The playground. It stays up while the gateway is down, and says so to those who look."""

    async def is_live() -> bool:
        return await probe.is_ok("/", LIVE_S)

    return Service(
        name="playground",
        awaited="the playground to start",
        command=PLAYGROUND_COMMAND,
        environment=environment,
        is_up=is_live,
        watches=(lambda _: silent(is_live, UNANSWERED, every_s=PLAYGROUND_LOOK_EVERY_S),),
        vital=False,
        start_limit_s=PLAYGROUND_START_LIMIT_S,
        grace_s=PLAYGROUND_GRACE_S,
        read=pylog.read,
        explain=pylog.why,
    )


def playground_environment(base: Mapping[str, str], settings: Settings, url: str) -> dict[str, str]:
    """What the playground finds around it.

    Args:
        base: of this process; ``OPENAI_API_KEY`` in it is the one for ``url``.
        settings: where it listens.
        url: of the API that it talks to.
    """
    here = [LOOPBACK, "localhost", urlsplit(api_url(settings)).hostname or ""]
    direct = [*dict.fromkeys(here), base.get("no_proxy") or base.get("NO_PROXY", "")]
    return {
        **without_secrets(base, "OPENAI_API_KEY"),
        "OPENAI_BASE_URL": url,
        "PLAYGROUND_HOST": settings.playground_host,
        "PLAYGROUND_PORT": str(settings.playground_port),
        "no_proxy": ",".join(filter(None, direct)),
        "PYTHONUNBUFFERED": "1",
    }


def with_key(base: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The same environment with the gateway's key as ``OPENAI_API_KEY``, and with no other.

    With several the one that ``OPENAI_API_KEY`` was set to, if it is among them: a key for another server
    is none of this one's business.
    """
    keys = _keys(settings)
    own = settings.openai_api_key.get_secret_value() if settings.openai_api_key else ""
    fitting = keys if len(keys) == 1 else keys & {own}
    others = {name: value for name, value in base.items() if name != "OPENAI_API_KEY"}
    return {**others, "OPENAI_API_KEY": fitting.pop()} if fitting else others


def worry_about_key(base: Mapping[str, str], settings: Settings) -> str:
    """What an operator should know about the playground's key, which is in ``base``; empty: nothing."""
    if "OPENAI_API_KEY" not in base:
        several = "the API has several keys: set OPENAI_API_KEY to the one that the playground is to use"
        return several if _keys(settings) else ""
    host = settings.playground_host
    return "" if is_loopback(host) else f"whoever reaches the playground at {host} asks with the API's key"


def _keys(settings: Settings) -> set[str]:
    """Every key of the gateway. A file that cannot be read is the gateway's to complain about."""
    given = settings.api_keys.get_secret_value().split(",") if settings.api_keys else []
    with suppress(OSError, UnicodeDecodeError):
        if settings.api_keys_file:
            lines = settings.api_keys_file.read_text(encoding="utf-8").splitlines()
            given += [line for line in lines if not line.strip().startswith("#")]
    return {key.strip() for key in given} - {""}
