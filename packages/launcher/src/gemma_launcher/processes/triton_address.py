"""Where the embedded Triton listens: TCP ports on loopback, or Unix sockets that only this user can open.

Triton checks neither API keys nor the ``Host`` header. A TCP port on loopback would let every local user, and
every web page through DNS rebinding, use the model without an API key.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gemma_launcher.addresses import LOOPBACK
from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings

MAX_SOCKET_PATH_BYTES: Final = 107
"""Without the terminating zero (``sockaddr_un.sun_path`` of Linux)."""


@dataclass(frozen=True)
class TritonAddress:
    """The HTTP and gRPC endpoints of one tritonserver.

    Args:
        http: ``HOST:PORT`` or ``unix:PATH``.
        grpc: as ``http``; a gRPC target.
        sockets: the Unix sockets; empty with TCP.
        flags: tritonserver's flags for these addresses, name → value.
    """

    http: str
    grpc: str
    sockets: tuple[Path, ...]
    flags: dict[str, str | int]

    @property
    def http_url(self) -> str:
        """The base URL of the HTTP endpoint; for a Unix socket the host is arbitrary."""
        return "http://localhost" if self.sockets else f"http://{self.http}"

    @property
    def http_socket(self) -> str | None:
        """The path of the HTTP endpoint's Unix socket, if it is one."""
        return self.http.removeprefix("unix:") if self.sockets else None

    def unlink_sockets(self) -> None:
        """Removes the sockets of an ended tritonserver, which a new one could not bind."""
        for path in self.sockets:
            path.unlink(missing_ok=True)


def triton_address(settings: LauncherSettings, folder: Path) -> TritonAddress:
    """The address of the embedded Triton.

    Args:
        settings: the ports, and whether Unix sockets are used.
        folder: the run's folder, which only its user can access; the sockets are created in it.

    Raises:
        CommandError: the folder's path is too long for a socket.
    """
    http_port, grpc_port = settings.gemma_triton_http_port, settings.gemma_triton_grpc_port
    if not settings.triton_uses_sockets:
        return TritonAddress(
            http=f"{LOOPBACK}:{http_port}",
            grpc=f"{LOOPBACK}:{grpc_port}",
            sockets=(),
            flags=_flags(LOOPBACK, LOOPBACK, settings),
        )
    http, grpc = folder / "http.sock", folder / "grpc.sock"
    # tritonserver appends the port to the gRPC address, so that it becomes part of the path.
    grpc_file = Path(f"{grpc}:{grpc_port}")
    if len(bytes(grpc_file)) > MAX_SOCKET_PATH_BYTES:
        raise CommandError(
            f"the path {grpc_file} is longer than the {MAX_SOCKET_PATH_BYTES} bytes of a Unix socket; "
            "set TMPDIR to a shorter one, or GEMMA_TRITON_LISTEN=tcp"
        )
    return TritonAddress(
        http=f"unix:{http}",
        grpc=f"unix:{grpc_file}",
        sockets=(http, grpc_file),
        flags=_flags(f"unix:{http}", f"unix:{grpc}", settings),
    )


def _flags(http: str, grpc: str, settings: LauncherSettings) -> dict[str, str | int]:
    return {
        "http-address": http,
        "http-port": settings.gemma_triton_http_port,
        "grpc-address": grpc,
        "grpc-port": settings.gemma_triton_grpc_port,
    }
