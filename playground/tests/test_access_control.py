"""Nobody reaches another browser's files or tabs, or asks from another site's page."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import httpx
import pytest

import attacks
from gemma_playground.event_validator import UNKNOWN_FILE
from served import PNG, PlaygroundServer, body, send_event, upload

pytestmark = pytest.mark.timeout(600)  # the first one waits for Gradio


def test_an_upload_belongs_to_the_browser_that_sent_it(
    served: PlaygroundServer, visitor: httpx.Client
) -> None:
    path = upload(visitor)
    assert Path(path).parent == served.store.folder
    assert visitor.get(f"/gradio_api/file={path}").content == PNG
    assert visitor.get(f"/gradio_api/file={path}").headers["content-security-policy"].endswith("sandbox")
    event = served.event(gr.MultimodalTextbox, name="send")
    message = {"text": "hi", "files": [{"path": path, "meta": attacks.META}]}
    assert UNKNOWN_FILE not in send_event(visitor, body(event, 0, message))
    for others in (served.stranger(), served.stranger(cookie=f"playground-{served.url[-5:]}=x")):
        with others as other:
            assert other.get(f"/gradio_api/file={path}").status_code == 404
            assert other.post("/gradio_api/run/predict", json=body(event, 0, message)).status_code == 403
            assert other.post("/gradio_api/upload", files=[("files", ("a.png", PNG))]).status_code == 403
    with served.visitor() as other:
        assert other.get(f"/gradio_api/file={path}").status_code == 404
        answer = other.post("/gradio_api/queue/join", json=body(event, 0, message))
        assert (answer.status_code, answer.json()["detail"]) == (403, UNKNOWN_FILE)


def test_a_tab_belongs_to_the_browser_that_opened_it(served: PlaygroundServer, visitor: httpx.Client) -> None:
    """Whoever guesses the name that a browser gave its tab has another tab."""
    event, undo = served.event(gr.JSON, name="reopen"), served.event(gr.State, name="undo")
    talk = {"messages": [{"role": "user", "content": "of the first"}]}
    assert "of the first" in send_event(visitor, body(event, 0, talk))
    with served.visitor() as other:
        assert "of the first" not in send_event(other, body(undo, -1, None))
        joined = visitor.post("/gradio_api/queue/join", json=body(event, 0, talk)).json()
        with pytest.raises(httpx.ReadTimeout):  # It receives nothing.
            other.get("/gradio_api/queue/data", params={"session_hash": "tab"}, timeout=1)
        sent = {"session_hash": "tab", "fn_index": event._id, "event_id": joined["event_id"]}
        other.post("/gradio_api/cancel", json={**sent, "event_id": "0" * 32})
    assert "of the first" in visitor.get("/gradio_api/queue/data", params={"session_hash": "tab"}).text
    assert "of the first" in send_event(visitor, body(undo, -1, None))


@pytest.mark.parametrize("name", ["", "a-b", "../x", "a" * 65, "a\0b", None, 3, ["a"], {"a": 1}])
def test_a_session_hash_has_only_letters_and_digits(
    served: PlaygroundServer, visitor: httpx.Client, name: Any
) -> None:
    sent = body(served.event(gr.JSON), 0, {"messages": []}, session_hash=name)
    assert visitor.post("/gradio_api/queue/join", json=sent).status_code == 400
    if isinstance(name, str) and "\0" not in name:
        assert visitor.get("/gradio_api/queue/data", params={"session_hash": name}).status_code == 403
        assert visitor.get(f"/gradio_api/heartbeat/{quote(name, safe='')}").status_code in {403, 404}


FOREIGN = (
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:3000"},
    {"origin": "http://play.example.org.evil.example"},
    {"origin": "file://"},
    {"host": "evil.example"},
    {"host": "evil.example:7860"},
    {"host": ""},
    {"host": "2130706433"},
    {"host": "127.0.0.1.evil.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
)


@pytest.mark.parametrize("headers", FOREIGN)
def test_pages_of_other_sites_get_nothing(
    served: PlaygroundServer, visitor: httpx.Client, headers: dict[str, str]
) -> None:
    path = upload(visitor)
    sent = body(served.event(gr.JSON), 0, {"messages": []})
    assert visitor.get("/", headers=headers).status_code == 403
    assert visitor.get(f"/gradio_api/file={path}", headers=headers).status_code == 403
    for route in ("queue/join", "run/predict", "cancel", "upload"):
        assert visitor.post(f"/gradio_api/{route}", json=sent, headers=headers).status_code == 403
    answer = visitor.options("/gradio_api/queue/join", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


OWN: tuple[dict[str, str], ...] = (
    {},
    {"origin": "OWN"},
    {"host": "localhost:1"},
    {"host": "[::1]:1", "origin": "http://[::1]:1"},
    {"host": "play.example.org", "origin": "https://play.example.org"},
    {"origin": "https://play.example.org"},  # behind a proxy that changes Host
    {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
)


@pytest.mark.parametrize("headers", OWN)
def test_the_page_is_served(served: PlaygroundServer, visitor: httpx.Client, headers: dict[str, str]) -> None:
    headers = {name: served.url if value == "OWN" else value for name, value in headers.items()}
    assert visitor.get("/", headers=headers).status_code == 200
    sent = body(served.event(gr.JSON), 0, {"messages": []})
    assert visitor.post("/gradio_api/queue/join", json=sent, headers=headers).status_code == 200


def test_a_link_may_lead_to_the_page(served: PlaygroundServer, visitor: httpx.Client) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert visitor.get("/?temperature=1", headers=link).status_code == 200
    assert visitor.get("/config", headers=link).status_code == 403
