"""Validates the requests of the page's events; files must belong to the browser's own session.

Gradio interprets every ``{"path": …, "meta": {"_type": "gradio.FileData"}}``, at any depth of any value, as a
file on this machine. Each request is therefore checked against the components of its event and rebuilt from
the expected values.
"""

import asyncio
import json
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode

import gradio as gr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_playground.access_control import API, EVENTS, RequestRefused
from gemma_playground.conversation import Message, messages_size, sanitize
from gemma_playground.file_store import MEDIA_TYPES, FileStore
from gemma_playground.sessions import tab_of
from gemma_playground.settings_panel import FIELDS
from gemma_playground.tab_registry import TabRegistry

BODY_SECONDS: Final = 60
MAX_ITEMS: Final = 500_000
"""Limit of values in a JSON body, estimated by its commas, colons and brackets, also those in strings."""
MAX_FILES: Final = 100
FILE_DATA: Final = {"_type": "gradio.FileData"}
UNKNOWN_FILE: Final = (
    "A file was not uploaded by this browser, or was deleted because of its age. Remove it, and add it again."
)


class EventValidator:
    """ASGI middleware before Gradio's routes that receive values from a browser.

    Args:
        tabs: with Gradio's application, which has the events and their components.
        store: the files of each session.
        max_body_bytes: limit of a request body; four times as much is the limit of all bodies in memory.
    """

    def __init__(self, app: ASGIApp, tabs: TabRegistry, store: FileStore, max_body_bytes: int) -> None:
        self.app, self.tabs, self.store = app, tabs, store
        self.max_body_bytes = max_body_bytes
        self.buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self._validate(scope, receive, send)
        except RequestRefused as refused:
            await refused.response()(scope, receive, send)

    async def _validate(self, scope: Scope, receive: Receive, send: Send) -> None:
        session, path = scope["state"]["session"], scope["path"]
        if path == f"{API}/queue/data":
            with self.tabs.listening(tab := _tab_of(scope, session)):
                query = urlencode({"session_hash": tab}).encode()
                await self.app({**scope, "query_string": query}, receive, send)
            return
        if path not in EVENTS:
            await self.app(_strip_query(scope, session), receive, send)
            return
        body = _parse(await self._read(scope, receive))
        try:
            sent = self._rebuild(session, path, body)
        except (KeyError, TypeError, ValueError) as error:
            raise RequestRefused(403 if not session else 400, _describe(error)) from error
        if path.endswith("/join"):
            self.tabs.joined(sent["session_hash"])
        content = json.dumps(sent, allow_nan=False).encode()
        await self.app(_with_content_length(scope, len(content)), _replay(content, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Reads the body of a request, within its limits of size and time."""
        headers, size, chunks = Headers(scope=scope), 0, []
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestRefused(415, "The body must be JSON, with Content-Type: application/json.")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                self._check_size(int(headers.get("content-length") or 0))
                while True:
                    message = await receive()
                    size += len(chunk := message.get("body", b""))
                    self.buffered += len(chunk)
                    self._check_size(size)
                    chunks.append(chunk)
                    if not message.get("more_body"):
                        return b"".join(chunks)
        except TimeoutError:
            raise RequestRefused(408, f"The body was not received within {BODY_SECONDS} seconds.") from None
        finally:
            self.buffered -= size

    def _check_size(self, size: int) -> None:
        if size > self.max_body_bytes:
            raise RequestRefused(
                413, f"The request has more than {self.max_body_bytes:,} bytes (PLAYGROUND_MAX_BODY_BYTES)."
            )
        if self.buffered > 4 * self.max_body_bytes:
            raise RequestRefused(503, "The playground is busy with other large requests. Try again.")

    def _rebuild(self, session: str, path: str, body: Message) -> Message:
        """The same request, with expected values only. Raises KeyError, TypeError, ValueError."""
        if path.endswith("/reset"):
            return {"event_id": _text(body["event_id"])}
        tab = {"session_hash": tab_of(session, body["session_hash"])}
        if path.endswith("/cancel"):
            return tab | {"event_id": _text(body["event_id"]), "fn_index": _number(body["fn_index"])}
        event = self.tabs.demo.fns.get(number := _number(body["fn_index"]))
        if event is None or event.fn is None:
            raise RequestRefused(404, "There is no such event.")
        values = [] if event.cancels else body["data"]
        if not isinstance(values, list) or len(values) != len(event.inputs):
            raise ValueError(f"data must be a list of {len(event.inputs)} values.")
        data = [self._value(session, part, value) for part, value in zip(event.inputs, values, strict=True)]
        trigger = body.get("trigger_id")
        return tab | {
            "data": data,
            "event_data": _event_data(body.get("event_data")),
            "fn_index": number,
            "trigger_id": None if trigger is None else _number(trigger),
        }

    def _value(self, session: str, part: object, value: Any) -> Any:
        """The value of a component, checked for its type."""
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
            raise TypeError("A message must have a text and a list of files.")
        if len(files) > MAX_FILES:
            raise ValueError(f"A message may have at most {MAX_FILES} files.")
        self._check_room(len(text := _text(value.get("text") or "")))
        return {"text": text, "files": [self._file(session, each) for each in files]}

    def _conversation(self, value: Any) -> Message | None:
        """The sanitized conversation; ``None`` if it is not valid, which the event reports to the user."""
        try:
            found = sanitize(value)
        except ValueError:
            return None
        self._check_room(messages_size(found["messages"]))
        settings = {name: value for name, value in found["settings"].items() if name in FIELDS}
        return found | {"settings": settings}

    def _check_room(self, size: int) -> None:
        if not self.tabs.has_room(size):
            raise RequestRefused(503, "The playground holds too many conversations. Try again later.")

    def _file(self, session: str, given: Any) -> Message:
        """A file of the session; of the browser's data only the path is used, to look it up."""
        path = given.get("path") if isinstance(given, dict) else None
        found = self.store.find(session, path) if isinstance(path, str) else None
        if found is None:
            raise RequestRefused(403, UNKNOWN_FILE)
        known = {"path": found.path, "size": found.size, "mime_type": MEDIA_TYPES[found.kind]}
        return {**known, "url": None, "orig_name": f"file.{found.kind}", "meta": FILE_DATA}


def _parse(body: bytes) -> Message:
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > MAX_ITEMS:
        raise RequestRefused(413, f"The request has more than {MAX_ITEMS:,} values.")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestRefused(400, "The body is not JSON.") from None
    if not isinstance(found, dict):
        raise RequestRefused(400, "The body must be a JSON object.")
    return found


def _event_data(value: Any) -> Message | None:
    """The index of a chat message that an event refers to, and its new text."""
    if not isinstance(value, dict):
        return None
    index, text = value.get("index"), value.get("value")
    return {
        "index": index if isinstance(index, int) else None,
        "value": text if isinstance(text, str) else None,
    }


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"A value must be a text, not {type(value).__name__}.")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"A value must be a whole number, not {type(value).__name__}.")
    return value


def _describe(error: Exception) -> str:
    return f"{error.args[0]} is missing." if isinstance(error, KeyError) else str(error)


def _strip_query(scope: Scope, session: str) -> Scope:
    """The request without its query; a heartbeat gets the tab's session hash."""
    path, head = scope["path"], f"{API}/heartbeat/"
    if path.startswith(head):
        path = f"{head}{_tab(session, path.removeprefix(head))}"
    return {**scope, "path": path, "raw_path": quote(path).encode(), "query_string": b""}


def _tab_of(scope: Scope, session: str) -> str:
    """The tab in the query."""
    names = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])
    return _tab(session, names[0])


def _tab(session: str, name: str) -> str:
    try:
        return tab_of(session, name)
    except ValueError as error:
        raise RequestRefused(403, str(error)) from error


def _with_content_length(scope: Scope, length: int) -> Scope:
    kept = [each for each in scope["headers"] if each[0] not in {b"content-length", b"transfer-encoding"}]
    return {**scope, "query_string": b"", "headers": [*kept, (b"content-length", str(length).encode())]}


def _replay(content: bytes, receive: Receive) -> Receive:
    """Receives the rebuilt body, and then the client's further messages, such as its disconnect."""
    pending = [content]

    async def receive_next() -> Any:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return receive_next
