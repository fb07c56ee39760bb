"""The state of a TCP connection, as the operating system reports it."""

import asyncio
import contextlib
import enum
import socket
from typing import Final

_KEEP_ALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""After a minute without a reply the connection is closed."""


class TCPState(enum.Enum):
    """The state of the client's side, as far as the system knows it."""

    OPEN = enum.auto()
    HALF_CLOSED = enum.auto()
    """The client sends nothing more. Whether it still reads shows when something is sent to it."""
    CLOSED = enum.auto()
    """The client has reset the connection, or cannot be reached."""


_STATES: Final = {7: TCPState.CLOSED, 8: TCPState.HALF_CLOSED}
"""Linux's TCP_CLOSE and TCP_CLOSE_WAIT."""


def tcp_state(transport: asyncio.Transport) -> TCPState:
    """The state, even while nothing is read from the connection; OPEN if the system does not report it."""
    sock = transport.get_extra_info("socket")
    if not hasattr(socket, "TCP_INFO") or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return TCPState.OPEN
    number = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return _STATES.get(number, TCPState.OPEN)


def set_options(transport: asyncio.Transport) -> None:
    """Sends at once what is written, and detects a client machine without power or network.

    asyncio sets TCP_NODELAY only if the listening socket was made with a protocol number. Without it, a token
    waits up to 40 ms until the client has acknowledged the one before it.
    """
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
