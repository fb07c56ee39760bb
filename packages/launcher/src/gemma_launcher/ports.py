"""Ports: is one free, and who has it if not."""

import errno
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from random import SystemRandom
from typing import TYPE_CHECKING, Final

from gemma_launcher import reaper
from gemma_launcher.errors import CannotStart

if TYPE_CHECKING:
    import psutil

BELOW_OUTGOING: Final = range(20_000, 32_768)
"""Linux gives outgoing connections ports from 32,768 on (``net.ipv4.ip_local_port_range``)."""

TRIES: Final = 20


@dataclass(frozen=True)
class Listener:
    """A port that something of ours will listen on.

    Args:
        what: for people: ``the API``.
        change: how to choose another: ``--port or API_PORT``.
    """

    what: str
    host: str
    port: int
    change: str


def find_free(host: str) -> int:
    """A port that is free now, and that no outgoing connection will be given before it is listened on.

    Raises:
        CannotStart: saying why nothing can listen at that address.
    """
    trouble = ""
    for port in SystemRandom().sample(BELOW_OUTGOING, TRIES):
        if not (trouble := why_not(host, port)):
            return port
    raise CannotStart(f"no port of {host} is free: {trouble}")


def check(listeners: tuple[Listener, ...]) -> None:
    """Passes when every port is free and no two are the same.

    Raises:
        CannotStart: naming the port, who has it if that can be seen, and how to choose another.
    """
    seen: dict[int, Listener] = {}
    for listener in listeners:
        if other := seen.get(listener.port):
            raise CannotStart(
                f"port {listener.port} is asked for twice, by {other.what} and by {listener.what}; "
                f"choose another with {listener.change}"
            )
        seen[listener.port] = listener
        if trouble := why_not(listener.host, listener.port):
            raise CannotStart(
                f"{listener.what} cannot listen on {listener.host}:{listener.port}: {trouble}; "
                f"choose another with {listener.change}"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on that address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def why_not(host: str, port: int) -> str:
    """Why nothing can listen there; empty when it can."""
    try:
        family, address = _resolve(host, port)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: a connection that lingers from the last run is no obstacle, a listener is.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is taken{_by(port)}"
        return (error.strerror or str(error)).lower()
    return ""


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return info[0], (str(info[4][0]), int(info[4][1]))


@dataclass(frozen=True)
class Holder:
    """A process that listens on a port.

    Args:
        run: of a Gemma-Triton, the name of its run; empty for any other program.
        launcher: the process that started this run; none when it is gone.
    """

    pid: int
    name: str
    run: str = ""
    launcher: int | None = None

    @property
    def is_orphan(self) -> bool:
        """Whether it is what a killed Gemma-Triton left behind."""
        return bool(self.run) and self.launcher is None


def holder(port: int) -> Holder | None:
    """Who listens on a port, when we may see it."""
    import psutil  # noqa: PLC0415 - only needed for a complaint

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                process = psutil.Process(connection.pid)
                run = _run_of(process)
                return Holder(process.pid, process.name(), run, _launcher(run, process))
    except (psutil.Error, OSError):
        pass
    return None


def _run_of(process: "psutil.Process") -> str:
    import psutil  # noqa: PLC0415

    try:
        return process.environ().get(reaper.MARK, "")
    except psutil.Error:  # another user's
        return ""


def _launcher(run: str, member: "psutil.Process") -> int | None:
    """The launcher whose process id is in the run's name; one that is younger only got the same number."""
    import psutil  # noqa: PLC0415

    number = run.split("-")[1] if run.count("-") >= 2 else ""
    try:
        launcher = psutil.Process(int(number))
        return launcher.pid if launcher.create_time() <= member.create_time() else None
    except (ValueError, psutil.Error):
        return None


def _by(port: int) -> str:
    """`` by nginx (process 12)``, when we may see it; of a Gemma-Triton also how to end it."""
    found = holder(port)
    if found is None:
        return ""
    of = f" of the Gemma-Triton that `kill {found.launcher}` ends" if found.launcher else ""
    return f" by {found.name} (process {found.pid}){of}"
