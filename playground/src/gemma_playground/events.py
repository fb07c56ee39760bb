"""What a browser may send to the page's events: what the page itself sends, and files of its own session.

Gradio takes every ``{"path": …, "meta": {"_type": "gradio.FileData"}}`` at any depth of any value for a file
on this machine. So each request is read here, checked against the components of its event, and built anew
from the values that are expected.
"""

import asyncio
import json
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode

import gradio as gr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_playground.conversation import Message, cleaned, size_of
from gemma_playground.files import MEDIA_TYPES, FileStore
from gemma_playground.guard import API, EVENTS, Refused
from gemma_playground.panel import NAMES
from gemma_playground.sessions import tab_of
from gemma_playground.tabs import Tabs

BODY_SECONDS: Final = 60
MAX_ITEMS: Final = 500_000
"""Values of a JSON body, by its commas, colons and brackets: those in strings count as well."""
MAX_FILES: Final = 100
FILE_DATA: Final = {"_type": "gradio.FileData"}
GONE: Final = (
    "A file was not uploaded by this browser, or it was too old and has been deleted. "
    "Remove it, and add it again."
)


class Events:
    """ASGI middleware before Gradio's routes that take values from a browser.

    Args:
        tabs: of Gradio's application, which knows the events and their components.
        store: knows the files of each session.
        max_body_bytes: of a request; four times as many may be held at the same time.
    """

    def __init__(self, app: ASGIApp, tabs: Tabs, store: FileStore, max_body_bytes: int) -> None:
        self.app, self.tabs, self.store = app, tabs, store
        self.max_body_bytes = max_body_bytes
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self._checked(scope, receive, send)
        except Refused as refused:
            await refused.response()(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        session, path = scope["state"]["session"], scope["path"]
        if path == f"{API}/queue/data":
            with self.tabs.listening(tab := _tab_of(scope, session)):
                query = urlencode({"session_hash": tab}).encode()
                await self.app({**scope, "query_string": query}, receive, send)
            return
        if path not in EVENTS:
            await self.app(_in_session(scope, session), receive, send)
            return
        body = _parsed(await self._read(scope, receive))
        try:
            sent = self._built(session, path, body)
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(403 if not session else 400, _sentence(error)) from error
        if path.endswith("/join"):
            self.tabs.joined(sent["session_hash"])
        content = json.dumps(sent, allow_nan=False).encode()
        await self.app(_with_length(scope, len(content)), _replaying(content, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request, within its limits of bytes and time."""
        headers, size, pieces = Headers(scope=scope), 0, []
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "The body must be JSON, with Content-Type: application/json.")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                self._check_size(int(headers.get("content-length") or 0))
                while True:
                    message = await receive()
                    size += len(piece := message.get("body", b""))
                    self.held += len(piece)
                    self._check_size(size)
                    pieces.append(piece)
                    if not message.get("more_body"):
                        return b"".join(pieces)
        except TimeoutError:
            raise Refused(408, f"The body did not come within {BODY_SECONDS} seconds.") from None
        finally:
            self.held -= size

    def _check_size(self, size: int) -> None:
        if size > self.max_body_bytes:
            raise Refused(
                413, f"The request has more than {self.max_body_bytes:,} bytes (PLAYGROUND_MAX_BODY_BYTES)."
            )
        if self.held > 4 * self.max_body_bytes:
            raise Refused(503, "The playground is busy with other large requests. Try again.")

    def _built(self, session: str, path: str, body: Message) -> Message:
        """The same request of values that are known. Raises KeyError, TypeError, ValueError."""
        if path.endswith("/reset"):
            return {"event_id": _text(body["event_id"])}
        tab = {"session_hash": tab_of(session, body["session_hash"])}
        if path.endswith("/cancel"):
            return tab | {"event_id": _text(body["event_id"]), "fn_index": _number(body["fn_index"])}
        event = self.tabs.demo.fns.get(number := _number(body["fn_index"]))
        if event is None or event.fn is None:
            raise Refused(404, "There is no such event.")
        given = [] if event.cancels else body["data"]
        if not isinstance(given, list) or len(given) != len(event.inputs):
            raise ValueError(f"data must be a list of {len(event.inputs)} values.")
        data = [self._value(session, part, value) for part, value in zip(event.inputs, given, strict=True)]
        trigger = body.get("trigger_id")
        return tab | {
            "data": data,
            "event_data": _event_data(body.get("event_data")),
            "fn_index": number,
            "trigger_id": None if trigger is None else _number(trigger),
        }

    def _value(self, session: str, part: object, value: Any) -> Any:
        """A component's value, of the type that it has."""
        if isinstance(part, gr.State):
            return None
        if isinstance(part, gr.MultimodalTextbox):
            return None if value is None else self._message(session, value)
        if isinstance(part, gr.Image):
            return None if value is None else self._file(session, value)
        if isinstance(part, gr.JSON):
            return self._conversation(value)
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        raise TypeError(f"A value must be a text, a number or null, not {type(value).__name__}.")

    def _message(self, session: str, value: Any) -> Message:
        if not isinstance(value, dict) or not isinstance(files := value.get("files") or [], list):
            raise TypeError("A message is a text and a list of files.")
        if len(files) > MAX_FILES:
            raise ValueError(f"A message may have {MAX_FILES} files.")
        self._check_room(len(text := _text(value.get("text") or "")))
        return {"text": text, "files": [self._file(session, each) for each in files]}

    def _conversation(self, value: Any) -> Message | None:
        """None, which the event refuses with a sentence, when it is no conversation."""
        try:
            found = cleaned(value)
        except ValueError:
            return None
        self._check_room(size_of(found["messages"]))
        told = {name: value for name, value in found["settings"].items() if name in NAMES}
        return found | {"settings": told}

    def _check_room(self, size: int) -> None:
        if not self.tabs.has_room(size):
            raise Refused(503, "The playground holds too many conversations. Try again later.")

    def _file(self, session: str, given: Any) -> Message:
        """A file of the session, with nothing of what the browser says of it but which one it is."""
        path = given.get("path") if isinstance(given, dict) else None
        found = self.store.find(session, path) if isinstance(path, str) else None
        if found is None:
            raise Refused(403, GONE)
        told = {"path": found.path, "size": found.size, "mime_type": MEDIA_TYPES[found.kind]}
        return {**told, "url": None, "orig_name": f"file.{found.kind}", "meta": FILE_DATA}


def _parsed(body: bytes) -> Message:
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > MAX_ITEMS:
        raise Refused(413, f"The request has more than {MAX_ITEMS:,} values.")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not JSON.") from None
    if not isinstance(found, dict):
        raise Refused(400, "The body must be a JSON object.")
    return found


def _event_data(value: Any) -> Message | None:
    """Which message of a chat an event is about, and its new text."""
    if not isinstance(value, dict):
        return None
    index, text = value.get("index"), value.get("value")
    return {
        "index": index if isinstance(index, int) else None,
        "value": text if isinstance(text, str) else None,
    }


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"A text is needed, not {type(value).__name__}.")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"A whole number is needed, not {type(value).__name__}.")
    return value


def _sentence(error: Exception) -> str:
    return f"{error.args[0]} is missing." if isinstance(error, KeyError) else str(error)


def _in_session(scope: Scope, session: str) -> Scope:
    """A tab's heartbeat, with the tab's name as Gradio knows it; any other request without its query."""
    path, head = scope["path"], f"{API}/heartbeat/"
    if path.startswith(head):
        path = f"{head}{_tab(session, path.removeprefix(head))}"
    return {**scope, "path": path, "raw_path": quote(path).encode(), "query_string": b""}


def _tab_of(scope: Scope, session: str) -> str:
    """The tab that a query names."""
    names = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])
    return _tab(session, names[0])


def _tab(session: str, name: str) -> str:
    try:
        return tab_of(session, name)
    except ValueError as error:
        raise Refused(403, str(error)) from error


def _with_length(scope: Scope, length: int) -> Scope:
    kept = [each for each in scope["headers"] if each[0] not in {b"content-length", b"transfer-encoding"}]
    return {**scope, "query_string": b"", "headers": [*kept, (b"content-length", str(length).encode())]}


def _replaying(content: bytes, receive: Receive) -> Receive:
    """The body that was built, and then whatever else the client sends: that it has left."""
    pending = [content]

    async def replay() -> Any:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay
