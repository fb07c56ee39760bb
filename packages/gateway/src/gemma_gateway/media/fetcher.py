"""Fetches files from URLs that clients choose, protected against server-side request forgery (SSRF).

A URL must be http or https, with a standard port, without credentials, and with a host that the operator
allows. The host is resolved once. If any of its addresses is not public, the URL is refused; otherwise the
connection is made to one of these addresses, so that a second lookup cannot return another one. Redirects are
checked in the same way. The response is counted while it arrives, never decompressed, and has a timeout.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from ssl import SSLContext
from typing import Final, Self

import httpx

from gemma_gateway.auth import covers
from gemma_gateway.media.public_addresses import Address, is_canonical_host, is_public

log = logging.getLogger(__name__)

MAX_REDIRECTS: Final = 3
MAX_URL: Final = 8192
PORTS: Final = (80, 443)
_LOOKUPS: Final = threading.BoundedSemaphore(64)
_TRIES: Final = 4
"""Addresses of a host that are tried."""
_NOT_ALLOWED: Final = "Images may not be fetched from the host of this URL."
_HEADERS: Final = {"User-Agent": "gemma-gateway", "Accept": "image/*, audio/*", "Accept-Encoding": "identity"}

Resolve = Callable[[str], Awaitable[Sequence[Address]]]


class FetchRefused(Exception):
    """The file is not fetched.

    Args:
        message: one sentence for the client; it reveals nothing about internal networks.
        code: the error's ``code``.
    """

    def __init__(self, message: str, code: str = "invalid_image_url") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(frozen=True)
class FetchLimits:
    """The limits of each fetch.

    Args:
        domains: allowed names, which include their subdomains; ``*`` is any public host.
        max_bytes: of one file.
        seconds: for one file, from the lookup of its host to its last byte.
    """

    domains: Collection[str]
    max_bytes: int
    seconds: float


class Fetcher:
    """Fetches files within limits. A context manager, which closes all connections at the end.

    Args:
        total_bytes: of all files together.
        resolve: host name → addresses; the system's resolver when not given.
        transport: sends a request to the address in its URL; httpx's transport when not given.
    """

    def __init__(
        self,
        limits: FetchLimits,
        total_bytes: int,
        resolve: Resolve | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._limits = limits
        self._left = total_bytes
        self._resolve = resolve or lookup
        self._transport = transport or _direct()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.aclose()

    async def get(self, url: str) -> bytes:
        """The file at a URL.

        Raises:
            FetchRefused: the URL is not allowed, or the file could not be fetched.
        """
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._follow(url)
        except TimeoutError:
            sentence = f"The image could not be fetched within {self._limits.seconds:g} seconds."
            raise FetchRefused(sentence, "failed_to_download_image") from None
        except httpx.HTTPError as error:
            log.info("fetching failed: %s", type(error).__name__)
            raise FetchRefused("The image could not be fetched.", "failed_to_download_image") from None

    async def _follow(self, url: str) -> bytes:
        current = self._checked(url)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._open(current) as response:
                if not response.has_redirect_location:
                    return await self._body(response)
                current = self._checked(_join(current, response.headers["location"]))
        raise FetchRefused(f"The URL redirects more than {MAX_REDIRECTS} times.")

    def _checked(self, url: str | httpx.URL) -> httpx.URL:
        """The URL, if it is allowed.

        Raises:
            FetchRefused: it is not.
        """
        where = _parse(url)
        if where.scheme not in ("http", "https") or not where.host:
            raise FetchRefused("Only http and https URLs are fetched.")
        if where.userinfo:
            raise FetchRefused("A URL with credentials in it is not fetched.")
        if where.port is not None and where.port not in PORTS:  # the scheme's default port is None
            raise FetchRefused(f"Only the ports {PORTS[0]} and {PORTS[1]} are fetched from.")
        if not is_canonical_host(_host(where)) or not self._allows(_host(where)):
            raise FetchRefused(_NOT_ALLOWED)
        return where

    def _allows(self, host: str) -> bool:
        return any(name == "*" or covers(name, host) for name in self._limits.domains)

    @asynccontextmanager
    async def _open(self, url: httpx.URL) -> AsyncGenerator[httpx.Response, None]:
        """A response of which the head has been read, from one of the host's addresses."""
        addresses = await self._addresses(_host(url))
        response = await self._ask(url, addresses)
        try:
            yield response
        finally:
            await response.aclose()

    async def _addresses(self, host: str) -> Sequence[Address]:
        """The addresses of the host, which are all public.

        Raises:
            FetchRefused: one is not public, or there are none; the message is the same for both.
        """
        try:
            addresses: Sequence[Address] = [ipaddress.ip_address(host)]
        except ValueError:
            addresses = await self._resolve(host)
        if not addresses or not all(map(is_public, addresses)):
            raise FetchRefused(_NOT_ALLOWED)
        return sorted(addresses, key=lambda address: address.version)[:_TRIES]

    async def _ask(self, url: httpx.URL, addresses: Sequence[Address]) -> httpx.Response:
        """Sends the request to the first address that can be reached; Host and TLS name are the URL's."""
        *others, last = addresses
        for address in others:
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._transport.handle_async_request(self._request(url, address, len(addresses)))
        return await self._transport.handle_async_request(self._request(url, last, len(addresses)))

    def _request(self, url: httpx.URL, address: Address, tries: int) -> httpx.Request:
        return httpx.Request(
            "GET",
            url.copy_with(host=str(address), fragment=None),
            headers={"Host": url.netloc.decode("ascii"), **_HEADERS},
            extensions={
                "sni_hostname": _host(url),
                "timeout": {"connect": self._limits.seconds / tries},
            },
        )

    async def _body(self, response: httpx.Response) -> bytes:
        _check_status(response.status_code)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise FetchRefused(
                "The image was sent with a Content-Encoding that was not requested.",
                "failed_to_download_image",
            )
        announced = response.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._limits.max_bytes:
            raise self._too_large()
        data = bytearray()
        async for piece in response.aiter_raw():
            data += piece
            self._left -= len(piece)
            if len(data) > self._limits.max_bytes or self._left < 0:
                raise self._too_large()
        return bytes(data)

    def _too_large(self) -> FetchRefused:
        return FetchRefused("The image is larger than allowed.", "image_file_too_large")


async def lookup(host: str) -> Sequence[Address]:
    """The host's addresses from the system's resolver; empty if there are none.

    Each lookup has a daemon thread: a name server that does not answer must delay neither other lookups nor
    the end of the process.

    Raises:
        FetchRefused: too many lookups are in progress.
    """
    if not _LOOKUPS.acquire(blocking=False):
        raise FetchRefused("Too many images are being fetched; try again later.", "failed_to_download_image")
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[Address]] = loop.create_future()

    def work() -> None:
        try:
            addresses = _getaddrinfo(host)
        finally:
            _LOOKUPS.release()
        with contextlib.suppress(RuntimeError):  # the event loop has been closed
            loop.call_soon_threadsafe(_set_result, found, addresses)

    threading.Thread(target=work, name="lookup", daemon=True).start()
    return await found


def _getaddrinfo(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(where[0]) for *_, where in found]


def _set_result(found: "asyncio.Future[Sequence[Address]]", addresses: Sequence[Address]) -> None:
    if not found.done():
        found.set_result(addresses)


def _parse(url: str | httpx.URL) -> httpx.URL:
    try:
        if len(str(url)) > MAX_URL:
            raise FetchRefused(f"The URL is longer than {MAX_URL} characters.")
        return httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise FetchRefused("The URL is not valid.") from None


def _join(current: httpx.URL, location: str) -> httpx.URL:
    try:
        return current.join(location)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise FetchRefused("The URL redirects to an invalid URL.") from None


def _check_status(status: int) -> None:
    if status in (404, 410):
        raise FetchRefused("There is no image at this URL.", "image_file_not_found")
    if status != 200:
        raise FetchRefused(f"The image's server responded with status {status}.", "failed_to_download_image")


def _host(url: httpx.URL) -> str:
    """The host in lower case, international names in ASCII form."""
    return url.raw_host.decode("ascii").lower().removesuffix(".")


def _direct() -> httpx.AsyncBaseTransport:
    """A transport without proxies, which would resolve names themselves, and without connection reuse."""
    alone = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncHTTPTransport(verify=_tls(), trust_env=False, limits=alone)


@cache
def _tls() -> SSLContext:
    return httpx.create_ssl_context(trust_env=False)
