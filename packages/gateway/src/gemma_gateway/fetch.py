"""Fetching files by URL for clients who choose the URL: the server must not be led where they cannot go.

A URL must be http or https, on the usual port, without credentials, and its host one that the operator
allows. The host is resolved here, once; when any of its addresses is not public it is refused, and else one
of them is what is connected to, so that a second look at the name cannot bring another. Each redirect goes
through all of this again. What comes is counted as it comes, never unpacked, and has a time limit.
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

from gemma_gateway.addresses import Address, is_public, is_usual
from gemma_gateway.auth import covers

log = logging.getLogger(__name__)

MAX_REDIRECTS: Final = 3
MAX_URL: Final = 8192
PORTS: Final = (80, 443)
_LOOKUPS: Final = threading.BoundedSemaphore(64)
_TRIES: Final = 4
"""Of the addresses of a host."""
_NOT_ALLOWED: Final = "The host of this URL is not one that images are fetched from."
_HEADERS: Final = {"User-Agent": "gemma-gateway", "Accept": "image/*, audio/*", "Accept-Encoding": "identity"}

Resolve = Callable[[str], Awaitable[Sequence[Address]]]


class Refused(Exception):
    """It is not fetched.

    Args:
        message: a sentence for the client; it tells nothing about networks that only the server sees.
        code: OpenAI's.
    """

    def __init__(self, message: str, code: str = "invalid_image_url") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(frozen=True)
class Limits:
    """What holds for each fetch.

    Args:
        domains: names, which cover their subdomains; ``*`` is any public host.
        max_bytes: of one file.
        seconds: for one file, from the lookup of its host to its last byte.
    """

    domains: Collection[str]
    max_bytes: int
    seconds: float


class Fetcher:
    """Fetches files within limits; leaving it as a context drops every connection.

    Args:
        total_bytes: of all files together that this fetcher gets.
        resolve: a host's addresses; the system's resolver, when not given.
        transport: carries a request to the address in its URL; httpx's own, when not given.
    """

    def __init__(
        self,
        limits: Limits,
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
        """The file behind a URL.

        Raises:
            Refused: why not.
        """
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._follow(url)
        except TimeoutError:
            sentence = f"The image could not be fetched within {self._limits.seconds:g} seconds."
            raise Refused(sentence, "failed_to_download_image") from None
        except httpx.HTTPError as error:
            log.info("fetching failed: %s", type(error).__name__)
            raise Refused("The image could not be fetched.", "failed_to_download_image") from None

    async def _follow(self, url: str) -> bytes:
        here = self._checked(url)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._answer(here) as answer:
                if not answer.has_redirect_location:
                    return await self._body(answer)
                here = self._checked(_join(here, answer.headers["location"]))
        raise Refused(f"The URL redirects more than {MAX_REDIRECTS} times.")

    def _checked(self, url: str | httpx.URL) -> httpx.URL:
        """The URL, if it is one to ask.

        Raises:
            Refused: it is not.
        """
        where = _parse(url)
        if where.scheme not in ("http", "https") or not where.host:
            raise Refused("Only http and https URLs are fetched.")
        if where.userinfo:
            raise Refused("A URL with credentials in it is not fetched.")
        if where.port is not None and where.port not in PORTS:  # the scheme's own is None
            raise Refused(f"Only the ports {PORTS[0]} and {PORTS[1]} are fetched from.")
        if not is_usual(_host(where)) or not self._allows(_host(where)):
            raise Refused(_NOT_ALLOWED)
        return where

    def _allows(self, host: str) -> bool:
        return any(name == "*" or covers(name, host) for name in self._limits.domains)

    @asynccontextmanager
    async def _answer(self, url: httpx.URL) -> AsyncGenerator[httpx.Response, None]:
        """The head of an answer, from one of the host's addresses; the body has not been read yet."""
        addresses = await self._addresses(_host(url))
        response = await self._ask(url, addresses)
        try:
            yield response
        finally:
            await response.aclose()

    async def _addresses(self, host: str) -> Sequence[Address]:
        """Those of the host, which all are public.

        Raises:
            Refused: one is not, or there are none. Which of the two is not told.
        """
        try:
            addresses: Sequence[Address] = [ipaddress.ip_address(host)]
        except ValueError:
            addresses = await self._resolve(host)
        if not addresses or not all(map(is_public, addresses)):
            raise Refused(_NOT_ALLOWED)
        return sorted(addresses, key=lambda address: address.version)[:_TRIES]

    async def _ask(self, url: httpx.URL, addresses: Sequence[Address]) -> httpx.Response:
        """Asks the first address that can be connected to; Host and the certificate's name stay the URL's."""
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

    async def _body(self, answer: httpx.Response) -> bytes:
        _check_status(answer.status_code)
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(
                "The image was sent compressed, which was not asked for.", "failed_to_download_image"
            )
        announced = answer.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._limits.max_bytes:
            raise self._too_large()
        data = bytearray()
        async for piece in answer.aiter_raw():
            data += piece
            self._left -= len(piece)
            if len(data) > self._limits.max_bytes or self._left < 0:
                raise self._too_large()
        return bytes(data)

    def _too_large(self) -> Refused:
        return Refused("The image is larger than is allowed.", "image_file_too_large")


async def lookup(host: str) -> Sequence[Address]:
    """The host's addresses, by the system's resolver; none when it has none.

    In a thread of its own, which nobody waits for: a name server that does not answer must hold up neither
    the other threads nor the end of the process.

    Raises:
        Refused: too many names are being looked up.
    """
    if not _LOOKUPS.acquire(blocking=False):
        raise Refused("Too many images are being fetched; try again later.", "failed_to_download_image")
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[Address]] = loop.create_future()

    def work() -> None:
        try:
            addresses = _getaddrinfo(host)
        finally:
            _LOOKUPS.release()
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_tell, found, addresses)

    threading.Thread(target=work, name="lookup", daemon=True).start()
    return await found


def _getaddrinfo(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(where[0]) for *_, where in found]


def _tell(found: "asyncio.Future[Sequence[Address]]", addresses: Sequence[Address]) -> None:
    if not found.done():
        found.set_result(addresses)


def _parse(url: str | httpx.URL) -> httpx.URL:
    try:
        if len(str(url)) > MAX_URL:
            raise Refused(f"The URL is longer than {MAX_URL} characters.")
        return httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise Refused("The URL is not valid.") from None


def _join(here: httpx.URL, location: str) -> httpx.URL:
    try:
        return here.join(location)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise Refused("The URL redirects to one that is not valid.") from None


def _check_status(status: int) -> None:
    if status in (404, 410):
        raise Refused("There is no image at this URL.", "image_file_not_found")
    if status != 200:
        raise Refused(f"The image's server answered with status {status}.", "failed_to_download_image")


def _host(url: httpx.URL) -> str:
    """In lower case, as it is looked up: international names in their ASCII form."""
    return url.raw_host.decode("ascii").lower().removesuffix(".")


def _direct() -> httpx.AsyncBaseTransport:
    """Never through a proxy, which would resolve names itself; and no connection serves two names."""
    alone = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncHTTPTransport(verify=_tls(), trust_env=False, limits=alone)


@cache
def _tls() -> SSLContext:
    return httpx.create_ssl_context(trust_env=False)
