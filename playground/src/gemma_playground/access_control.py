"""Checks the host, origin and route of each request before its body is read."""

import ipaddress
import socket
from collections.abc import Callable, Collection
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_playground.sessions import new_cookie, session_of

API: Final = "/gradio_api"
PAGE: Final = "/"
GET_PATHS: Final = {
    PAGE,
    "/config",
    "/theme.css",
    "/favicon.ico",
    f"{API}/app_id",
    f"{API}/startup-events",
    f"{API}/queue/data",
    f"{API}/upload_progress",
}
"""The paths that the page requests with GET."""
GET_PREFIXES: Final = ("/assets/", "/static/", f"{API}/file=", f"{API}/heartbeat/")
EVENTS: Final = {f"{API}/{name}" for name in ("queue/join", "run/predict", "cancel", "reset")}
UPLOAD: Final = f"{API}/upload"
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RequestRefused(Exception):
    """A request is refused; ``status`` is the HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status

    def response(self) -> JSONResponse:
        """The error response; Gradio's page shows ``detail`` or ``error``."""
        return JSONResponse({"error": str(self), "detail": str(self)}, self.status)


class AccessControl:
    """ASGI middleware that refuses every request that the page itself does not send.

    It sets ``state["session"]`` to the id of the browser's session, or to an empty string.

    Args:
        host: the address that the server listens on.
        allowed: host names of the page in addition to IP addresses, localhost and this machine's own name;
            "*": any.
    """

    def __init__(self, app: ASGIApp, host: str, allowed: Collection[str]) -> None:
        self.app, self.allowed = app, allowed
        self.names = {"localhost", host.lower(), socket.gethostname().lower(), *allowed} - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        session = session_of(scope, headers.get("cookie", ""))
        scope.setdefault("state", {})["session"] = session
        try:
            check_host(headers, self.names)
            check_origin(scope, headers, self.allowed)
            check_route(scope)
        except RequestRefused as refused:
            await refused.response()(scope, receive, _with_headers(send, {}))
            return
        cookie = {"Set-Cookie": new_cookie(scope)} if is_page(scope) and not session else {}
        await self.app(scope, receive, _with_headers(send, cookie))


def check_host(headers: Headers, names: Collection[str]) -> None:
    """Prevents DNS rebinding: the host name must be a known one."""
    given = headers.getlist("host")
    host = _hostname(f"//{given[0]}") if len(given) == 1 else ""
    if not _is_known(host, names):
        raise RequestRefused(
            403,
            f"The host name {host[:100]!r} is not allowed; PLAYGROUND_ALLOWED_HOSTS lists the allowed ones.",
        )


def check_origin(scope: Scope, headers: Headers, allowed: Collection[str]) -> None:
    """Refuses requests from pages of other sites, except links to the page.

    Behind a proxy that changes ``Host``, the origin's host name must be one of the allowed names.
    """
    site = headers.get("sec-fetch-site", "none")
    is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site not in {"none", "same-origin"} and not (is_page(scope) and is_link):
        raise RequestRefused(403, "Pages of other sites may not use the playground.")
    for origin in headers.getlist("origin"):
        scheme, separator, authority = origin.lower().partition("://")
        is_own = separator and scheme in {"http", "https"} and authority == headers["host"].lower()
        if not is_own and _hostname(origin) not in allowed:
            raise RequestRefused(403, f"Pages of {origin[:100]!r} may not use the playground.")


def check_route(scope: Scope) -> None:
    """Refuses the routes of Gradio that the page does not need."""
    path, method = scope["path"], scope["method"]
    if path in GET_PATHS or path.startswith(GET_PREFIXES):
        allowed: Collection[str] = ("GET", "HEAD")
    elif path in EVENTS or path == UPLOAD:
        allowed = ("POST",)
    else:
        raise RequestRefused(404, "There is no such page.")
    if method not in allowed:
        raise RequestRefused(405, f"{method[:20]} is not allowed here.")


def is_page(scope: Scope) -> bool:
    """Whether the page itself is requested."""
    return scope["method"] in ("GET", "HEAD") and scope["path"] == PAGE


def _with_headers(send: Send, more: dict[str, str]) -> Callable[[Message], Any]:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            for name, value in more.items():
                headers.append(name, value)
        await send(message)

    return send_with_headers


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_known(host: str, names: Collection[str]) -> bool:
    if "*" in names:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host) and any(host == name or host.endswith(f".{name}") for name in names)
    return True
