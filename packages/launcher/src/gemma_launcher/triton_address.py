"""Where the embedded Triton listens: TCP ports on loopback, or Unix sockets that only this user can open.

Triton checks neither API keys nor the ``Host`` header. With API keys set, a TCP port on loopback would let
every local user, and every web page through DNS rebinding, use the model without a key.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gemma_launcher.errors import CannotStart
from gemma_launcher.settings import Settings

LOOPBACK = "127.0.0.1"
LONGEST_SOCKET_PATH: Final = 107
"""Bytes of a Unix socket's path, without the closing zero (``sockaddr_un.sun_path`` of Linux)."""


@dataclass(frozen=True)
class TritonAddress:
    """The HTTP and gRPC endpoints of one tritonserver.

    Args:
        http: ``HOST:PORT``, or ``unix:PATH``.
        grpc: as ``http``; a target that gRPC understands.
        sockets: the Unix sockets among them; none with TCP.
        flags: what tritonserver is told, name → value.
    """

    http: str
    grpc: str
    sockets: tuple[Path, ...]
    flags: dict[str, str | int]

    @property
    def http_url(self) -> str:
        """The base URL of the HTTP endpoint; the host of a Unix socket's is a label."""
        return "http://localhost" if self.sockets else f"http://{self.http}"

    @property
    def http_socket(self) -> str | None:
        """The path of the HTTP endpoint's Unix socket, if it is one."""
        return self.http.removeprefix("unix:") if self.sockets else None

    def unlink_sockets(self) -> None:
        """Removes sockets that an ended tritonserver left, which a new one could not bind."""
        for path in self.sockets:
            path.unlink(missing_ok=True)


def triton_address(settings: Settings, folder: Path) -> TritonAddress:
    """The address of the embedded Triton.

    Args:
        settings: the ports, and whether Unix sockets are used.
        folder: of this run, which only its user can enter; the sockets are made in it.

    Raises:
        CannotStart: the folder's path is too long for a socket.
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
    # tritonserver appends the port to the gRPC address, which is part of the path then.
    grpc_file = Path(f"{grpc}:{grpc_port}")
    if len(bytes(grpc_file)) > LONGEST_SOCKET_PATH:
        raise CannotStart(
            f"the path {grpc_file} is longer than the {LONGEST_SOCKET_PATH} bytes of a Unix socket; "
            "set TMPDIR to a shorter one, or GEMMA_TRITON_LISTEN=tcp"
        )
    return TritonAddress(
        http=f"unix:{http}",
        grpc=f"unix:{grpc_file}",
        sockets=(http, grpc_file),
        flags=_flags(f"unix:{http}", f"unix:{grpc}", settings),
    )


def _flags(http: str, grpc: str, settings: Settings) -> dict[str, str | int]:
    return {
        "http-address": http,
        "http-port": settings.gemma_triton_http_port,
        "grpc-address": grpc,
        "grpc-port": settings.gemma_triton_grpc_port,
    }
