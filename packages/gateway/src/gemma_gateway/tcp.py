"""What the system knows of a TCP connection."""

import asyncio
import contextlib
import enum
import socket
from typing import Final

_KEEP_ALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""After a minute without a sign of life the client's machine is gone."""


class TCPState(enum.Enum):
    """What the client has done with the connection, as far as the system can tell."""

    OPEN = enum.auto()
    HALF_CLOSED = enum.auto()
    """It sends nothing more; whether it still reads shows when something is sent to it."""
    CLOSED = enum.auto()
    """It has reset the connection, or its machine is gone."""


_STATES: Final = {7: TCPState.CLOSED, 8: TCPState.HALF_CLOSED}
"""Linux's TCP_CLOSE and TCP_CLOSE_WAIT."""


def tcp_state(transport: asyncio.Transport) -> TCPState:
    """The state, also while nothing is read from the connection; OPEN where the system does not tell."""
    sock = transport.get_extra_info("socket")
    if not hasattr(socket, "TCP_INFO") or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return TCPState.OPEN
    number = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return _STATES.get(number, TCPState.OPEN)


def notice_dead_machines(transport: asyncio.Transport) -> None:
    """A machine without power or network closes nothing: lets the system ask whether it is there."""
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
