"""h11's HTTP parser, with stricter checks against request smuggling."""

import re
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import h11

from gemma_gateway.errors import MalformedRequest

MAX_HEAD: Final = 2**16
"""Maximum size of a request before its body, bytes."""
_HOST: Final = re.compile(rb"([\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(:\d*)?", re.ASCII)
_ABSOLUTE: Final = re.compile(rb"https?://", re.IGNORECASE)
_QUOTED: Final = re.compile(
    r"(?P<what>.*?): (bytearray\()?b(?P<quote>['\"])(?P<text>.*)(?P=quote)\)?( .*)?", re.DOTALL
)
_MESSAGES: Final = {
    "illegal request line": "The request line is not 'METHOD PATH HTTP/1.1'",
    "Illegal target characters": "The request line is not 'METHOD PATH HTTP/1.1'",
    "illegal header line": "A header line is malformed; it begins with",
    "Missing mandatory Host": "The Host header is missing",
    "Found multiple Host": "There is more than one Host header",
    "bad Content-Length": "The Content-Length is not a number of bytes",
    "conflicting Content-Length": "There are different values of Content-Length",
    "multiple Transfer-Encoding": "There is more than one Transfer-Encoding header",
    "Only Transfer-Encoding": "The only Transfer-Encoding that is supported is 'chunked'",
    "illegal chunk header": "The body has a malformed chunk size",
    "malformed chunk footer": "The body has a chunk that is longer than its size says",
    "continuation line": "The first header line begins with a space",
    "Receive buffer too long": f"The head of the request, or of a chunk, has more than {MAX_HEAD:,} bytes",
}
"""The beginning of h11's message → ours."""


class RequestParser(h11.Connection):
    """The requests of one connection.

    In addition to h11's errors, it refuses: both Content-Length and Transfer-Encoding, Transfer-Encoding in
    HTTP/1.0, versions other than HTTP/1, an invalid Host, and a long head even if it arrives at once.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD)
        self._begun = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """See h11. A request for an absolute URL is returned as one for its path."""
        self._skip_empty_lines()
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        _check(event)
        return _with_path(event) if _ABSOLUTE.match(event.target) else event

    def start_next_cycle(self) -> None:
        """See h11."""
        super().start_next_cycle()
        self._begun = False

    def _skip_empty_lines(self) -> None:
        """Skips empty lines before a request, which old clients send after a body (RFC 9112, 2.2)."""
        if self._begun or self.their_state is not h11.IDLE:
            return
        data = bytes(self._receive_buffer)
        if empty := len(data) - len(data.lstrip(b"\r\n")):
            self._receive_buffer.maybe_extract_at_most(empty)
        self._begun = empty < len(data)


def as_scope(request: h11.Request, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """The ASGI scope of a request, without the connection's fields."""
    raw_path, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii"),
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "query_string": query,
        "headers": headers,
    }


def malformed(error: h11.RemoteProtocolError) -> MalformedRequest:
    """The error for a client. It repeats at most a header name or a few bytes of a chunk."""
    text, quoted = str(error), _QUOTED.fullmatch(str(error))
    sentence = next(
        (message for words, message in _MESSAGES.items() if text.startswith(words)), text.rstrip(".")
    )
    if quoted and quoted["what"] == "illegal header line":
        return MalformedRequest(f"{sentence} {quoted['text'].partition(':')[0][:60]!r}.")
    if quoted and "chunk" in quoted["what"]:
        return MalformedRequest(f"{sentence}: '{quoted['text'][:30]}'.")
    return MalformedRequest(f"{sentence}.")


def _check(request: h11.Request) -> None:
    """Checks that the request is unambiguous.

    Raises:
        h11.RemoteProtocolError: it is not.
    """
    headers = dict(request.headers)
    if request.http_version[:2] != b"1.":
        version = request.http_version.decode("ascii")
        raise h11.RemoteProtocolError(f"HTTP/{version} is not supported; use HTTP/1.1.")
    if b"transfer-encoding" in headers and request.http_version == b"1.0":
        raise h11.RemoteProtocolError("Transfer-Encoding needs HTTP/1.1.")
    if b"transfer-encoding" in headers and b"content-length" in headers:
        raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding exclude each other.")
    if not _HOST.fullmatch(headers.get(b"host", b"")):
        raise h11.RemoteProtocolError("The Host header is not a host name.")
    if len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers) > MAX_HEAD:
        raise h11.RemoteProtocolError("Receive buffer too long", error_status_hint=431)


def _with_path(request: h11.Request) -> h11.Request:
    """Replaces the absolute URL by its path, and the Host header by its host (RFC 9112, 3.2.2).

    Raises:
        h11.RemoteProtocolError: the URL is invalid.
    """
    try:
        url = urlsplit(request.target.decode("ascii"))
    except ValueError:
        raise h11.RemoteProtocolError("The URL in the request line is malformed.") from None
    host = url.netloc.encode("ascii")
    if not host or not _HOST.fullmatch(host):
        raise h11.RemoteProtocolError("The URL in the request line has no valid host.")
    headers = [(name, value) for name, value in request.headers if name != b"host"]
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return h11.Request(
        method=request.method,
        headers=[(b"host", host), *headers],
        target=target.encode("ascii"),
        http_version=request.http_version,
    )
