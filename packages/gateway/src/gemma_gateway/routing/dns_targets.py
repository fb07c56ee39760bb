"""gRPC targets of the servers behind a name: each of its addresses is a server of its own."""

import asyncio
import logging
import re
import socket
from collections.abc import Sequence
from typing import Final

log = logging.getLogger(__name__)
_NAME: Final = re.compile(r"dns:(?://[^/]*/)?(?P<host>[^/]+):(?P<port>\d+)")
"""As gRPC has it: ``dns:name:port`` or ``dns:///name:port``. A DNS server before the name is not used."""


def has_names(targets: Sequence[str]) -> bool:
    """Whether any target is a name whose addresses may change."""
    return any(map(_NAME.fullmatch, targets))


async def resolve_targets(targets: Sequence[str]) -> list[str]:
    """All targets, each name replaced by its addresses; without duplicates.

    Raises:
        OSError: a name cannot be resolved.
    """
    found: dict[str, None] = {}
    for target in targets:
        name = _NAME.fullmatch(target)
        found |= dict.fromkeys(
            [target] if name is None else await _addresses(name["host"], int(name["port"]))
        )
    return list(found)


async def _addresses(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    families = {socket.AF_INET: "ipv4:{}:{}", socket.AF_INET6: "ipv6:[{}]:{}"}
    return sorted(families[info[0]].format(info[4][0], port) for info in infos if info[0] in families)
