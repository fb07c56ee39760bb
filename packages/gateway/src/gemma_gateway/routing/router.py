"""The decision which servers a request tries, in which order. No clock, no network, no state.

A conversation stays on the server that ran its last turn, because that one has its prefix in the cache. A
new conversation goes to the server that rendezvous hashing gives it (Thaler and Ravishankar 1998): each
server has a score for each key, and the highest wins. So when a server joins or leaves, only the
conversations move that it wins or had won. Neither rule may overload a server while others have room: as in
consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018), no server gets more than
``LOAD_BOUND`` times the mean load by new conversations. A later turn costs its own server much less than any
other, so it stays there up to ``STAY_BOUND`` (docs/decisions/036-routing.md).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LOAD_BOUND: Final = 1.25
"""Outstanding tokens of a server, compared with the mean, up to which it gets new conversations."""
STAY_BOUND: Final = 2.0
"""The same for later turns of its conversations."""
ALWAYS_ROOM: Final = 4
"""A server with fewer outstanding requests has room, whatever the mean is: it runs them together."""


@dataclass(frozen=True)
class ServerLoad:
    """A server as the router sees it.

    Args:
        name: its address.
        tokens: estimated tokens of its outstanding requests.
        requests: number of its outstanding requests.
        available: it is ready, not full, and has not failed.
    """

    name: str
    tokens: int = 0
    requests: int = 0
    available: bool = True


def rank_servers(
    servers: Sequence[ServerLoad], key: bytes | None = None, last: str | None = None, tokens: int = 0
) -> list[str]:
    """The names of all servers, in the order in which a request should try them.

    Those with room come first, by affinity; then the other available ones and at last those that are not
    available, by load.

    Args:
        servers: in any order.
        key: of the conversation; ``None``: the order is by load alone.
        last: the server that ran the last turn of the conversation.
        tokens: estimated tokens of the request.
    """
    by_load = sorted(servers, key=lambda server: (not server.available, server.tokens, server.requests))
    if key is None or len(servers) < 2:
        return [server.name for server in by_load]
    available = [server for server in servers if server.available]
    mean = (sum(server.tokens for server in available) + tokens) / max(1, len(available))
    room = [server for server in available if _has_room(server, tokens, mean, server.name == last)]
    scores = {server.name: (server.name == last, _score(key, server.name)) for server in room}
    first = sorted(scores, key=lambda name: scores[name], reverse=True)
    return first + [server.name for server in by_load if server.name not in scores]


def _has_room(server: ServerLoad, tokens: int, mean: float, stays: bool) -> bool:
    bound = STAY_BOUND if stays else LOAD_BOUND
    return server.requests < ALWAYS_ROOM or server.tokens + tokens <= bound * mean


def _score(key: bytes, name: str) -> bytes:
    return hashlib.blake2b(name.encode(), key=key, digest_size=8).digest()
