"""Sessions: who a request comes from.

A session is one browser. It is known by a cookie, a random number that the server issues with the page. Its
id is the cookie's digest. Gradio's own session, one for each tab, has a name that the browser chooses. The
server puts the session's id before that name, so no browser can reach a tab of another, whatever it sends.
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
    """One for each port: browsers send the cookies of a host to all its ports."""
    _, port = scope.get("server") or ("", 0)
    return f"playground-{port}"


def session_of(scope: Scope, cookies: str) -> str:
    """The id of the session that a request's ``Cookie`` header names; empty without one."""
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
    """Gradio's name of a tab of this session. Raises ValueError."""
    if not session:
        raise ValueError("This request needs the cookie that comes with the page. Load the page again.")
    if not isinstance(name, str) or not TAB.fullmatch(name):
        raise ValueError("session_hash must be 1 to 64 letters and digits.")
    return f"{session}-{name}"


def session_of_tab(tab: str | None) -> str:
    """The other way round."""
    return (tab or "").partition("-")[0]
