"""Uploads, bodies and the queue have limits, and a refusal names them."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import gradio as gr
import httpx
import pytest

from gemma_playground import event_validator
from gemma_playground.file_store import FileStore
from served import LIMITS, PNG, PlaygroundServer, body, upload

MIB = 2**20

pytestmark = pytest.mark.timeout(600)  # the first one waits for Gradio


@pytest.fixture(autouse=True)
def _empty(served: PlaygroundServer) -> Iterator[None]:
    """Each test begins with an empty store, whatever tests of other modules have left in it."""
    empty(served.store)
    yield
    empty(served.store)


def empty(store: FileStore) -> None:
    """Deletes all files. Room that is then still reserved belongs to a request that has lost it."""
    for file in list(store._files.values()):
        store._remove(file)
    assert store.used() == 0


def send(visitor: httpx.Client, *files: tuple[str, bytes]) -> httpx.Response:
    return visitor.post("/gradio_api/upload", files=[("files", file) for file in files])


@pytest.mark.parametrize(
    ("name", "content", "status", "told"),
    [
        (
            "large.png",
            b"x" * (MIB * 3 // 2),
            413,
            "'large.png': The file has 1.5 MB; a file may have at most 1 MB.",
        ),
        ("empty.png", b"", 400, "'empty.png': The file is empty."),
        ("notes.txt", b"x", 400, "'notes.txt' is not one of png, jpg,"),
        ("page.svg", b"<svg/>", 400, "'page.svg' is not one of"),
        ("png", b"x", 400, "'png' is not one of"),
        ("a.png/", b"x", 400, "is not one of"),
        ("../../a.png%00.txt", b"x", 400, "is not one of"),
        ("x" * 3000 + ".html", b"x", 400, "x.html' is not one of"),
        ("x" * 9000 + ".html", b"x", 400, "Invalid multipart data."),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_file_that_is_not_accepted_is_named(
    served: PlaygroundServer, visitor: httpx.Client, name: str, content: bytes, status: int, told: str
) -> None:
    answer = send(visitor, ("good.png", PNG), (name, content))
    assert (answer.status_code, told in answer.text) == (status, True), answer.text
    assert len(answer.text) < 300
    assert served.store.used() == 0, "all are stored, or none"


@pytest.mark.parametrize(
    "name", ["/etc/a.png", "..\\..\\a.PNG", "C:\\a.png", "..png", "a\r\nb.png", "😀" * 500 + ".png"]
)
def test_the_name_of_a_file_is_not_the_servers(
    served: PlaygroundServer, visitor: httpx.Client, name: str
) -> None:
    path = upload(visitor, PNG, name)
    folder, _, stored = path.rpartition("/")
    assert folder == str(served.store.folder)
    assert len(stored) == 32 + len(".png")


def test_a_browser_may_upload_so_much_and_no_more(served: PlaygroundServer, visitor: httpx.Client) -> None:
    for number in range(4):
        answer = send(visitor, (f"{number}.png", bytes([number]) * (MIB - 1024)))
        last = (answer.status_code, answer.text)
    assert last[0] == 200
    answer = send(visitor, ("5.png", b"x" * (MIB - 1024)))
    assert answer.status_code == 413
    assert (
        "The files of one browser may have at most 4 MB in total. Files are deleted after 240 minutes."
        in answer.text
    )
    with served.visitor() as other:
        assert send(other, ("5.png", b"x" * (MIB - 1024))).status_code == 200


def test_all_browsers_together_may_upload_so_much_and_no_more(served: PlaygroundServer) -> None:
    for number in range(5):
        with served.visitor() as visitor:
            statuses = [
                send(visitor, ("a.png", bytes([number, more]) * (400 * 1024))).status_code
                for more in range(5)
            ]
            if 507 in statuses:
                assert served.store.used() <= LIMITS.max_total_bytes
                return
    raise AssertionError("never full")


def test_the_number_of_files_in_an_upload_is_limited(visitor: httpx.Client, served: PlaygroundServer) -> None:
    answer = send(visitor, *[(f"{number}.png", PNG) for number in range(101)])
    assert (answer.status_code, "100" in answer.text) == (400, True)
    assert served.store.used() == 0


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "multipart/form-data"}, b"x", 400),
        ({"content-type": "multipart/form-data; boundary=x"}, b"no form", 400),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x\r\n\r\nx\r\n--x--\r\n", 400),
        ({"content-type": "application/json"}, b"{}", 200),
        ({"content-type": "application/x-www-form-urlencoded"}, b"files=/etc/passwd", 400),
    ],
)
def test_an_upload_without_a_form_is_refused(
    served: PlaygroundServer, visitor: httpx.Client, headers: dict[str, str], content: bytes, status: int
) -> None:
    answer = visitor.post("/gradio_api/upload", headers=headers, content=content)
    assert answer.status_code == status, answer.text
    assert answer.text == "[]" or status == 400
    assert served.store.used() == 0


def half(
    served: PlaygroundServer, visitor: httpx.Client, path: str, kind: str, length: int, sent: bytes
) -> socket.socket:
    """A connection that has sent a part of a body."""
    place = urlsplit(served.url)
    connection = socket.create_connection((place.hostname, place.port))
    cookie = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    head = f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nCookie: {cookie}\r\nContent-Type: {kind}\r\n"
    connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + sent)
    return connection


def eventually(is_so: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(0.05)
    return False


def test_an_incomplete_upload_leaves_nothing(served: PlaygroundServer, visitor: httpx.Client) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + PNG
    form = "multipart/form-data; boundary=x"
    connection = half(served, visitor, "/gradio_api/upload", form, 3 * MIB, part)
    assert eventually(lambda: served.store.used() == 3 * MIB), "its room is kept"
    assert send(visitor, ("b.png", b"y" * (MIB - 1024))).status_code == 413 or served.store.used() <= 4 * MIB
    connection.close()
    assert eventually(lambda: served.store.used() < 2 * MIB)


def test_an_upload_needs_a_content_length(visitor: httpx.Client) -> None:
    answer = visitor.post(
        "/gradio_api/upload",
        headers={"content-type": "multipart/form-data; boundary=x"},
        content=iter([b"--x--\r\n"]),
    )
    assert (answer.status_code, answer.text) == (411, "An upload needs a Content-Length.")


def test_a_body_is_limited(served: PlaygroundServer, visitor: httpx.Client) -> None:
    talk = {"messages": [{"role": "user", "content": "x" * 2 * MIB}]}
    sent = body(served.event(gr.JSON), 0, talk)
    answer = visitor.post("/gradio_api/queue/join", json=sent)
    assert (answer.status_code, "PLAYGROUND_MAX_BODY_BYTES" in answer.text) == (413, True)
    chunks = iter([b"{" + b" " * MIB] * 4)
    json = {"content-type": "application/json"}
    with suppress(httpx.WriteError):  # The server may hang up before all was sent.
        assert visitor.post("/gradio_api/queue/join", headers=json, content=chunks).status_code == 413


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b"[" + b"0," * 600_000 + b"0]", 413),
        (b'{"data": [' + b"{}," * 300_000 + b"{}]}", 413),
        (b"[]", 400),
        (b"null", 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b'{"data": [], "fn_index": 1e999, "session_hash": "tab"}', 400),
        (b'{"data": [], "fn_index": true, "session_hash": "tab"}', 400),
        (b'{"data": [], "fn_index": -1, "session_hash": "tab"}', 404),
        (b'{"data": [], "fn_index": 99999, "session_hash": "tab"}', 404),
        (b'{"data": {}, "fn_index": 0, "session_hash": "tab"}', 400),
        (b'{"fn_index": 0, "session_hash": "tab"}', 400),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_body_that_is_no_event_is_refused(visitor: httpx.Client, content: bytes, status: int) -> None:
    for route in ("queue/join", "run/predict", "cancel", "reset"):
        answer = visitor.post(
            f"/gradio_api/{route}", headers={"content-type": "application/json"}, content=content
        )
        assert answer.status_code in ({status} if "/" in route else {status, 400, 200}), (route, answer.text)
        assert answer.status_code == 200 or set(answer.json()) == {"error", "detail"}
    answer = visitor.post("/gradio_api/queue/join", headers={"content-type": "text/plain"}, content=content)
    assert answer.status_code == 415


def test_a_body_must_come_in_time(
    served: PlaygroundServer, visitor: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_validator, "BODY_SECONDS", 0.2)
    connection = half(served, visitor, "/gradio_api/queue/join", "application/json", 100, b"{")
    connection.settimeout(30)
    assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    connection.close()


def test_the_queue_is_bounded(
    served: PlaygroundServer, visitor: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if every place were taken: events wait, and the ninth is refused."""
    queue = served.demo._queue
    assert queue.max_size == LIMITS.max_queue
    monkeypatch.setattr(type(queue), "__len__", lambda _: LIMITS.max_queue)
    answer = visitor.post("/gradio_api/queue/join", json=body(served.event(gr.JSON), 0, {"messages": []}))
    assert (answer.status_code, "Queue is full" in answer.text) == (503, True)
