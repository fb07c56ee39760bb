"""What may reach the page at all: hosts, origins, routes. Everything else is refused before it is read."""

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
READ: Final = {
    PAGE,
    "/config",
    "/theme.css",
    "/favicon.ico",
    f"{API}/app_id",
    f"{API}/startup-events",
    f"{API}/queue/data",
    f"{API}/upload_progress",
}
"""What the page asks for with GET."""
READ_BELOW: Final = ("/assets/", "/static/", f"{API}/file=", f"{API}/heartbeat/")
EVENTS: Final = {f"{API}/{name}" for name in ("queue/join", "run/predict", "cancel", "reset")}
UPLOAD: Final = f"{API}/upload"
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refused(Exception):
    """A request is not answered; ``status`` is HTTP's."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status

    def response(self) -> JSONResponse:
        """As Gradio's page reads it: it shows ``detail`` or ``error``."""
        return JSONResponse({"error": str(self), "detail": str(self)}, self.status)


class Guard:
    """ASGI middleware that answers 403 and 404 to whatever is not the page's own.

    Behind it ``state["session"]`` is the id of the browser's session; empty if it has none.

    Args:
        host: what the server listens on.
        allowed: names under which the page may be opened, besides addresses, localhost and this machine's own
            name; "*": any.
    """

    def __init__(self, app: ASGIApp, host: str, allowed: Collection[str]) -> None:
        self.app, self.allowed = app, allowed
        self.names = {"localhost", host.lower(), socket.gethostname().lower(), *allowed} - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
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
        except Refused as refused:
            await refused.response()(scope, receive, _with_headers(send, {}))
            return
        cookie = {"Set-Cookie": new_cookie(scope)} if is_page(scope) and not session else {}
        await self.app(scope, receive, _with_headers(send, cookie))


def check_host(headers: Headers, names: Collection[str]) -> None:
    """A web page can let its own name resolve to this machine; it cannot change what the name is."""
    given = headers.getlist("host")
    host = _hostname(f"//{given[0]}") if len(given) == 1 else ""
    if not _is_known(host, names):
        raise Refused(
            403,
            f"The playground does not answer to the name {host[:100]!r}; "
            "PLAYGROUND_ALLOWED_HOSTS lists those it does.",
        )


def check_origin(scope: Scope, headers: Headers, allowed: Collection[str]) -> None:
    """Pages of other sites get nothing, except that a link may lead to the page.

    Behind a proxy that changes ``Host`` the origin's name must be one of those that are allowed.
    """
    site = headers.get("sec-fetch-site", "none")
    is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site not in {"none", "same-origin"} and not (is_page(scope) and is_link):
        raise Refused(403, "Pages of other sites may not use the playground.")
    for origin in headers.getlist("origin"):
        scheme, marked, place = origin.lower().partition("://")
        is_own = marked and scheme in {"http", "https"} and place == headers["host"].lower()
        if not is_own and _hostname(origin) not in allowed:
            raise Refused(403, f"Pages of {origin[:100]!r} may not use the playground.")


def check_route(scope: Scope) -> None:
    """Gradio has many routes; the page needs few of them."""
    path, method = scope["path"], scope["method"]
    if path in READ or path.startswith(READ_BELOW):
        allowed: Collection[str] = ("GET", "HEAD")
    elif path in EVENTS or path == UPLOAD:
        allowed = ("POST",)
    else:
        raise Refused(404, "There is no such page.")
    if method not in allowed:
        raise Refused(405, f"{method[:20]} is not allowed here.")


def is_page(scope: Scope) -> bool:
    """Whether the page itself is asked for."""
    return scope["method"] in ("GET", "HEAD") and scope["path"] == PAGE


def _with_headers(send: Send, more: dict[str, str]) -> Callable[[Message], Any]:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            for name, value in more.items():
                headers.append(name, value)
        await send(message)

    return sending


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
