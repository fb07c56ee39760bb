"""Authentication by API keys, and the check of the Host header."""

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
from gemma_gateway.settings import GatewaySettings

log = logging.getLogger(__name__)
HEALTH: Final = ("/health", "/health/live", "/health/ready")
"""Paths without authentication: health checks have no key, and the responses contain no secrets."""


class Keys:
    """The configured API keys, stored as digests.

    The time of a check depends only on the length of the given key: it is hashed and compared with all keys,
    so it reveals neither a common prefix nor a position in the list.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def cache_salt(self, index: int) -> str:
        """Separates the prefix caches of different keys; the key cannot be derived from it."""
        return hashlib.sha256(b"cache_salt\0" + self._digests[index]).hexdigest()

    def find(self, key: bytes) -> int | None:
        """The index of the key, or ``None``."""
        given = _digest(key)
        found = [index for index, digest in enumerate(self._digests) if compare_digest(digest, given)]
        return found[0] if found else None


class Access:
    """Responds with 401 or 403 before the request is read. The health endpoints need no key.

    It sets ``state.key``, the index of the key, and ``state.cache_salt``, which separates the prefix caches
    of different keys (``generation.generate``); without configured keys both are ``None``.

    Args:
        keys: the valid keys; empty: no key is needed.
        hosts: the valid names in the Host header, besides IP addresses; empty: any. A name includes its
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
        """The index of the key in ``Authorization``, or else of the one in ``x-api-key``."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        keys = [bearer if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
        given = [key.strip().encode("latin-1") for key in keys if key.strip()]
        if not given:
            raise Unauthorized(
                "You did not provide an API key. Send it in the header Authorization: Bearer YOUR_API_KEY, "
                "or in the header x-api-key."
            )
        found = next((index for key in given if (index := self.keys.find(key)) is not None), None)
        if found is None:
            raise Unauthorized("Incorrect API key provided.")
        return found


def covers(name: str, host: str) -> bool:
    """Whether the host is a listed name or a subdomain of it."""
    return host == name or host.endswith(f".{name}")


def warn_if_open(settings: GatewaySettings) -> None:
    """Logs a warning if the port is reachable from the network and needs no key."""
    if not settings.api_keys and not settings.is_loopback:
        log.warning(
            "listening on %s without API keys: anyone who can reach the port can use it", settings.host
        )


def _check_host(value: str, hosts: Collection[str]) -> None:
    """Prevents DNS rebinding: the Host header still has the name of the web page that rebinds it."""
    try:
        host = (urlsplit(f"//{value}").hostname or "").removesuffix(".")
    except ValueError:
        host = ""
    if not _is_address(host) and not any(covers(name, host) for name in hosts):
        raise Forbidden(
            f"The host name {host[:100]!r} is not allowed; API_ALLOWED_HOSTS lists the allowed names."
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
