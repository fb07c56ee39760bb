"""Whether a port is free, and which process uses it if not."""

import errno
import socket
from collections.abc import Collection
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING, Final

from gemma_launcher.errors import CommandError
from gemma_launcher.processes import orphan_cleanup

if TYPE_CHECKING:
    import psutil

PORT_RANGE: Final = range(20_000, 32_768)
"""Below the ports of outgoing connections, which start at 32,768 (``net.ipv4.ip_local_port_range``)."""

MAX_TRIES: Final = 20


@dataclass(frozen=True)
class PortBinding:
    """A port that one of the services will listen on.

    Args:
        what: the service, for messages: ``the API``.
        host: address to listen on.
        port: its port.
        change: how to choose another port: ``--port or API_PORT``.
    """

    what: str
    host: str
    port: int
    change: str


@dataclass(frozen=True)
class PortOwner:
    """A process that listens on a port.

    Args:
        pid: its process id.
        name: its name.
        run: the name of its run if it belongs to a Gemma-Triton, otherwise empty.
        launcher: the process id of the launcher that started this run; ``None`` if it has ended.
    """

    pid: int
    name: str
    run: str = ""
    launcher: int | None = None

    @property
    def is_orphan(self) -> bool:
        """Whether it was left behind by a killed Gemma-Triton."""
        return bool(self.run) and self.launcher is None


def find_free_port(host: str, exclude: Collection[int] = ()) -> int:
    """A free port, not one of ``exclude``, that no outgoing connection will take before it is listened on.

    Raises:
        CommandError: nothing can listen at that address.
    """
    reason = ""
    for port in SystemRandom().sample(PORT_RANGE, min(MAX_TRIES + len(exclude), len(PORT_RANGE))):
        if port not in exclude and not (reason := bind_error(host, port)):
            return port
    raise CommandError(f"no port of {host} is free: {reason}")


def check_ports(bindings: tuple[PortBinding, ...]) -> None:
    """Checks that all ports are free and different.

    Raises:
        CommandError: naming the port, the process that uses it if that is visible, and how to choose another.
    """
    seen: dict[int, PortBinding] = {}
    for binding in bindings:
        if other := seen.get(binding.port):
            raise CommandError(
                f"port {binding.port} is used twice, by {other.what} and by {binding.what}; "
                f"choose another with {binding.change}"
            )
        seen[binding.port] = binding
        if reason := bind_error(binding.host, binding.port):
            raise CommandError(
                f"{binding.what} cannot listen on {binding.host}:{binding.port}: {reason}; "
                f"choose another with {binding.change}"
            )


def bind_error(host: str, port: int) -> str:
    """Why nothing can listen at this address; empty if it is possible."""
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(info[0], socket.SOCK_STREAM) as server:
            # As servers do: connections in TIME_WAIT are ignored, listeners are not.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(info[4][:2])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is taken{_describe_owner(port)}"
        return (error.strerror or str(error)).lower()
    return ""


def find_port_owner(port: int) -> PortOwner | None:
    """The process that listens on a port, if it is visible to this user."""
    import psutil  # noqa: PLC0415 - only needed for an error message

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                process = psutil.Process(connection.pid)
                run = _run_name(process)
                return PortOwner(process.pid, process.name(), run, _launcher_of(run, process))
    except (psutil.Error, OSError):
        pass
    return None


def _run_name(process: "psutil.Process") -> str:
    import psutil  # noqa: PLC0415

    try:
        return process.environ().get(orphan_cleanup.RUN_VARIABLE, "")
    except psutil.Error:  # it belongs to another user
        return ""


def _launcher_of(run: str, member: "psutil.Process") -> int | None:
    """The launcher whose process id is in the run's name, unless that id was reused by a younger process."""
    import psutil  # noqa: PLC0415

    number = run.split("-")[1] if run.count("-") >= 2 else ""
    try:
        launcher = psutil.Process(int(number))
        return launcher.pid if launcher.create_time() <= member.create_time() else None
    except (ValueError, psutil.Error):
        return None


def _describe_owner(port: int) -> str:
    """`` by nginx (process 12)``; for a running Gemma-Triton also how to stop it; empty if not visible."""
    owner = find_port_owner(port)
    if owner is None:
        return ""
    stop = f" of a running Gemma-Triton, which `kill {owner.launcher}` stops" if owner.launcher else ""
    return f" by {owner.name} (process {owner.pid}){stop}"
