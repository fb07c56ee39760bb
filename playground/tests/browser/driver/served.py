"""The playground without a browser: its application on a port, and requests like those of a browser."""

import asyncio
import faulthandler
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import gradio as gr
import httpx
import uvicorn
from starlette.routing import Mount

from gemma_playground.api_client import ApiClient
from gemma_playground.file_store import FileStore
from gemma_playground.server import create_app
from gemma_playground.settings import MIB, PlaygroundSettings

SECRET = "the-secret-of-this-server"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
LIMITS = PlaygroundSettings(
    allowed_hosts=("play.example.org",),
    max_file_bytes=MIB,
    max_session_bytes=4 * MIB,
    max_total_bytes=16 * MIB,
    max_body_bytes=2 * MIB,
    max_queue=8,
)


class PlaygroundServer:
    """The application on a free port of loopback."""

    def __init__(self, folder: Path) -> None:
        self.store = FileStore(folder, LIMITS)
        self.url = ""
        self.started = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Run it in the thread of its event loop; in any other thread, Gradio leaves an event loop open."""
        thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        thread.start()
        while not self.started.wait(0.1):
            assert thread.is_alive()
        yield self
        self.server.should_exit = True
        thread.join(10)
        self.server.force_exit = True
        thread.join(20)
        assert not thread.is_alive(), f"the playground's server did not end: {self._running_tasks()}"

    def _running_tasks(self) -> str:
        faulthandler.dump_traceback()
        return "\n".join(map(repr, asyncio.all_tasks(self.loop)))

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.app = create_app(ApiClient("http://127.0.0.1:9/v1"), self.store, LIMITS)
        (mount,) = [each for each in self.app.routes if isinstance(each, Mount) and not each.path]
        gradio_app: Any = mount.app
        self.gradio_app, self.demo = gradio_app, gradio_app.get_blocks()
        """Gradio's application, without our middleware."""
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="error", timeout_graceful_shutdown=1))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            serving = asyncio.create_task(self.server.serve([listening]))
            while not self.server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.05)
            self.started.set()
            await serving

    @contextmanager
    def visitor(self, **headers: str) -> Iterator[httpx.Client]:
        """A client with a session: it has opened the page."""
        with self.stranger(**headers) as client:
            assert client.get("/").status_code == 200
            assert f"playground-{self.url.rpartition(':')[2]}" in client.cookies
            yield client

    def stranger(self, **headers: str) -> httpx.Client:
        """A client without a session."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def event(self, *kinds: type, name: str = "") -> Any:
        """The first event with an input of each of these kinds, and a function of this name."""
        for each in self.demo.fns.values():
            fits = all(any(isinstance(part, kind) for part in each.inputs) for kind in kinds)
            if fits and each.fn and name in str(each.name):
                return each
        raise AssertionError(kinds)


def upload(visitor: httpx.Client, content: bytes = PNG, name: str = "a.png") -> str:
    answer = visitor.post("/gradio_api/upload", files=[("files", (name, content))])
    assert answer.status_code == 200, answer.text
    (path,) = answer.json()
    return str(path)


def body(event: Any, place: int, value: Any, **more: Any) -> dict[str, Any]:
    """The body for an event: a value for one input, and the page's usual values for the others."""
    data = [_usual_value(part) for part in event.inputs]
    if place >= 0:
        data[place] = value
    return {"data": data, "fn_index": event._id, "session_hash": "tab", "trigger_id": None, **more}


def _usual_value(part: object) -> Any:
    if isinstance(part, gr.MultimodalTextbox):
        return {"text": "hi", "files": []}
    return {"messages": []} if isinstance(part, gr.JSON) else None


def send_event(visitor: httpx.Client, sent: dict[str, Any]) -> str:
    """Everything that an event returns."""
    answer = visitor.post("/gradio_api/run/predict", json=sent)
    received = answer.text
    if visitor.post("/gradio_api/queue/join", json=sent).status_code == 200:
        received += visitor.get("/gradio_api/queue/data", params={"session_hash": sent["session_hash"]}).text
    return received


def leaked(served: PlaygroundServer, visitor: httpx.Client, received: str) -> bool:
    """Whether a response contains the secret, or the path of a file that does."""
    copies = [each for each in served.store.folder.rglob("*") if each.is_file()]
    named = re.findall(r'"path":\s*"([^"]+)"', received)
    contents = [visitor.get(f"/gradio_api/file={each}").text for each in named]
    return any(SECRET in each for each in (received, *contents)) or any(
        SECRET.encode() in each.read_bytes() for each in copies
    )
