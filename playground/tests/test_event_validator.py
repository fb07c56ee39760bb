"""No file of the server is read, whatever a browser says is a file."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import httpx
import pytest
from starlette.testclient import TestClient

import attacks
from gemma_playground.access_control import RequestRefused
from gemma_playground.event_validator import EventValidator
from gemma_playground.settings import MIB
from gemma_playground.tab_registry import TabRegistry
from served import SECRET, PlaygroundServer, body, leaked, send_event

pytestmark = pytest.mark.timeout(600)  # the first one waits for Gradio


def values(paths: list[str]) -> Iterator[Any]:
    """Invented files: every way to say it at every depth, every spelling of a path, every path."""
    for made_up in attacks.file_data(paths[0]):
        yield from attacks.nested(made_up)
    for path in paths:
        for spelling in attacks.spellings(path):
            made_up = {"path": spelling, "meta": attacks.META}
            yield from (made_up, {"text": "", "files": [made_up]})


def files_in(value: Any) -> list[Any]:
    """Whatever Gradio could take for a file, at any depth."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    own = [value] if isinstance(value, dict) and value.keys() & {"path", "meta"} else []
    return [*own, *(found for each in inner for found in files_in(each))]


def test_no_event_accepts_an_unknown_file(served: PlaygroundServer, secrets: list[str]) -> None:
    """Every event, every input of it and its event data, whatever is said, at every depth."""
    events = EventValidator(served.app, TabRegistry(served.demo, 1024 * MIB), served.store, MIB)
    every, tried, taken = list(values(secrets)), 0, 0
    for event in [each for each in served.demo.fns.values() if each.fn]:
        for place in range(-1, len(event.inputs)):
            deep = place < 0 or isinstance(event.inputs[place], gr.JSON | gr.MultimodalTextbox | gr.Image)
            for value in every if deep else every[:30]:
                more = {"event_data": value} if place < 0 else {}
                tried += 1
                with suppress(RequestRefused, KeyError, TypeError, ValueError):
                    sent = body(event, place, value, **more)
                    assert files_in(events._rebuild("session", "/gradio_api/run/predict", sent)) == []
                    taken += 1
    assert tried > 10_000
    assert taken > 1000, "what is taken is taken without the file"


@pytest.mark.parametrize("kind", [gr.MultimodalTextbox, gr.JSON, gr.Image, gr.Dropdown])
def test_no_component_accepts_an_unknown_file(
    served: PlaygroundServer, visitor: httpx.Client, secrets: list[str], kind: type
) -> None:
    """All the way, through the queue as well."""
    event, made_up = served.event(kind), {"path": secrets[0], "meta": attacks.META}
    (place, *_) = [at for at, part in enumerate(event.inputs) if isinstance(part, kind)]
    tried = attacks.nested(made_up)
    said = [send_event(visitor, body(event, place, value, event_data=value)) for value in tried]
    assert not leaked(served, visitor, "".join(said))


def test_gradio_itself_takes_no_file_of_the_server(
    served: PlaygroundServer, visitor: httpx.Client, secrets: list[str]
) -> None:
    """The second line: what would happen if a value came past the first."""
    demo = served.demo
    assert (demo.allowed_paths, demo.has_launched, demo.is_running) == ([], True, True)
    assert {"/proc", "/etc", "/dev", str(Path.cwd())} <= set(demo.blocked_paths)
    event, box = served.event(gr.JSON, name="reopen"), served.event(gr.MultimodalTextbox, gr.Image)
    said = ""
    with TestClient(served.gradio_app, raise_server_exceptions=False) as inside:
        for path in ("/etc/hostname", "/proc/self/environ", str(Path("pyproject.toml").absolute())):
            made_up = {"path": path, "meta": attacks.META}
            for each, value in ((event, {"messages": [], "x": made_up}), (box, made_up)):
                data = [value] + [None] * (len(each.inputs) - 1)
                answer = inside.post("/gradio_api/run/predict", json={"data": data, "fn_index": each._id})
                said += answer.text
    assert "gradio_api/file=" not in said
    assert not leaked(served, visitor, said)


READ = ("file=", "file/", "proxy=", "stream/", "custom_component/", "deep_link?path=")
OTHERS = (
    "/static/{}", "/assets/{}", "/svelte/{}", "/config?deep_link={}", "/?deep_link={}", "/theme.css?v={}",
    "/pwa_icon/{}", "/monitoring/{}", "/{}",
)  # fmt: skip


def test_no_route_shows_a_file(served: PlaygroundServer, visitor: httpx.Client, secrets: list[str]) -> None:
    routes = [*(f"/gradio_api/{each}{{}}" for each in READ), *OTHERS]
    for path in secrets[:1]:
        for spelling in (*attacks.spellings(path), *(quote(each) for each in attacks.spellings(path))):
            for route in routes:
                answer = visitor.get(served.url + quote(route.format(spelling), safe="/%=?&#"))
                assert SECRET not in answer.text, (route, spelling)
                if not route.endswith("}") or "gradio_api" in route:
                    assert answer.status_code in {400, 403, 404, 405}, (route, spelling, answer.status_code)


def test_no_address_is_fetched(served: PlaygroundServer, visitor: httpx.Client) -> None:
    asked: list[str] = []
    with listening(asked) as inner:
        for url in (inner, inner.replace("127.0.0.1", "localhost"), f"https:{inner[5:]}", f"//{inner[7:]}"):
            for route in ("file=", "proxy=", "file/"):
                assert visitor.get(f"/gradio_api/{route}{url}").status_code == 404
            for made_up in attacks.file_data(url) if url == inner else ():
                for event in (served.event(gr.MultimodalTextbox), served.event(gr.JSON)):
                    for value in (made_up, {"text": "", "files": [made_up]}, {"messages": [made_up]}):
                        send_event(visitor, body(event, 0, value))
    assert asked == []


@contextmanager
def listening(asked: list[str]) -> Iterator[str]:
    """A server of an inner network, and who asked it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/a.png"
        server.shutdown()
        thread.join()


CLOSED = (
    "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/mcp", "/gradio_api/runs", "/gradio_api/user",
    "/gradio_api/token", "/gradio_api/login_check", "/gradio_api/queue/status", "/gradio_api/dev/reload",
    "/gradio_api/vibe-code", "/gradio_api/deep_link", "/gradio_api/call/ask", "/monitoring",
    "/monitoring/summary",
    "/login", "/logout", "/manifest.json", "/pwa_icon", "/robots.txt", "/docs", "/redoc", "/openapi.json",
    "/gradio_api/", "/gradio_api/run/predict/", "/config/", "/GRADIO_API/info",
)  # fmt: skip
CLOSED_POSTS = (
    "/gradio_api/run/ask", "/gradio_api/api/predict", "/gradio_api/call/ask", "/gradio_api/call/v2/ask",
    "/gradio_api/component_server", "/gradio_api/process_recording", "/gradio_api/vibe-edit",
    "/gradio_api/vibe-code", "/gradio_api/stream/x", "/gradio_api/stream/x/close",
    "/gradio_api/run-history/connect",
    "/login", "/upload", "/gradio_api/upload/", "/gradio_api/queue/join/",
)  # fmt: skip


def test_only_the_routes_of_the_page_are_open(visitor: httpx.Client) -> None:
    for path in CLOSED:
        assert visitor.get(path).status_code == 404, path
    for path in CLOSED_POSTS:
        assert visitor.post(path, json={"data": []}).status_code == 404, path
    for path in ("/", "/config", "/gradio_api/app_id", "/theme.css"):
        assert visitor.get(path).status_code == 200, path
        assert visitor.post(path).status_code == 405, path
    assert visitor.get("/gradio_api/queue/join").status_code == 405
