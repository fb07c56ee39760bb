"""Sessions: which browser a request comes from.

A session is one browser, identified by a cookie with a random number that is set with the page. The session
id is the cookie's digest. Gradio has a session hash for each tab, which the browser chooses. The server
prefixes it with the session id, so that a browser cannot reach the tabs of another one.
"""

import hashlib
import re
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.types import Scope

COOKIE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
TAB: Final = re.compile(r"[A-Za-z0-9]{1,64}")


def cookie_name(scope: Scope) -> str:
    """The cookie's name, with the port: browsers send the cookies of a host to all its ports."""
    _, port = scope.get("server") or ("", 0)
    return f"playground-{port}"


def session_of(scope: Scope, cookies: str) -> str:
    """The session id of a ``Cookie`` header; empty without a valid cookie."""
    try:
        found = SimpleCookie(cookies).get(cookie_name(scope))
    except CookieError:
        return ""
    if found is None or not COOKIE.fullmatch(found.value):
        return ""
    return hashlib.sha256(found.value.encode()).hexdigest()[:32]


def new_cookie(scope: Scope) -> str:
    """The ``Set-Cookie`` header of a new session."""
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    value = secrets.token_urlsafe(32)
    return f"{cookie_name(scope)}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000{secure}"


def tab_of(session: str, name: object) -> str:
    """The session hash that Gradio gets for a tab. Raises ValueError."""
    if not session:
        raise ValueError("This request needs the cookie that comes with the page. Reload the page.")
    if not isinstance(name, str) or not TAB.fullmatch(name):
        raise ValueError("session_hash must be 1 to 64 letters and digits.")
    return f"{session}-{name}"


def session_of_tab(tab: str | None) -> str:
    """The session id of a tab's session hash."""
    return (tab or "").partition("-")[0]
