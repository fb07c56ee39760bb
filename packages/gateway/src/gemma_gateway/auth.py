"""Who may ask: API keys, and the host names that are ours."""

import hashlib
import ipaddress
import logging
from collections.abc import Collection, Sequence
from hmac import compare_digest
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_gateway.errors import Forbidden, Unauthorized
from gemma_gateway.settings import Settings

log = logging.getLogger(__name__)
HEALTH: Final = ("/health", "/health/live", "/health/ready")
"""What is open to everybody: whoever watches the process has no key, and learns no secret."""


class Keys:
    """The keys that are known, kept as digests.

    What a wrong key costs in time depends on nothing but its length: it is hashed first, and then compared
    with all of them, so neither a common beginning nor a place in the list shows.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def cache_salt(self, index: int) -> str:
        """What keeps the caches of one key apart from those of all others; it does not tell the key."""
        return hashlib.sha256(b"cache_salt\0" + self._digests[index]).hexdigest()

    def find(self, key: bytes) -> int | None:
        """Which key it is, or ``None``."""
        given = _digest(key)
        found = [index for index, digest in enumerate(self._digests) if compare_digest(digest, given)]
        return found[0] if found else None


class Access:
    """Answers 401 and 403 before anything of the request is read. The health family is open.

    Behind it ``state.key`` tells which key asks, and ``state.cache_salt`` what keeps its caches apart from
    those of the other keys (``asking.ask``); without keys both are ``None``.

    Args:
        keys: none: everybody may ask.
        hosts: the names under which this server may be asked, besides addresses; none: any. A name covers its
            subdomains.
    """

    def __init__(self, app: ASGIApp, keys: Keys, hosts: Collection[str]) -> None:
        self.app = app
        self.keys = keys
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] == "http" and scope["path"] not in HEALTH:
            try:
                self._check(Headers(scope=scope), scope.setdefault("state", {}))
            except (Forbidden, Unauthorized) as error:
                await error.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, headers: Headers, state: dict[str, object]) -> None:
        if self.hosts:
            _check_host(headers.get("host", ""), self.hosts)
        key = self._key(headers) if self.keys else None
        state["key"] = key
        state["cache_salt"] = None if key is None else self.keys.cache_salt(key)

    def _key(self, headers: Headers) -> int:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized(
                "You did not provide an API key: it goes into the header Authorization: Bearer."
            )
        found = self.keys.find(key.strip().encode("latin-1"))
        if found is None:
            raise Unauthorized("Incorrect API key provided.")
        return found


def covers(name: str, host: str) -> bool:
    """Whether a listed name is the host, or the host a subdomain of it."""
    return host == name or host.endswith(f".{name}")


def warn_if_open(settings: Settings) -> None:
    """Says so when everybody on the network may ask."""
    if not settings.api_keys and not settings.is_loopback:
        log.warning("listening on %s without API keys: whoever reaches the port may ask", settings.host)


def _check_host(value: str, hosts: Collection[str]) -> None:
    """A web page can have its own name resolve to this machine; it cannot change what the name is."""
    try:
        host = (urlsplit(f"//{value}").hostname or "").removesuffix(".")
    except ValueError:
        host = ""
    if not _is_address(host) and not any(covers(name, host) for name in hosts):
        raise Forbidden(
            f"This server does not answer to the name {host[:100]!r}; API_ALLOWED_HOSTS lists those it does."
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
