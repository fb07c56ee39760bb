"""Bad input: the correct status, ``param`` and exception class, and the server continues to serve."""

import base64
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from image_files import header, png
from stack import Stack

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
PART = "messages[0].content[1].image_url"


@pytest.fixture(autouse=True)
def _still_serving(client: Any) -> Iterator[None]:
    yield
    answer = client.chat.completions.create(
        model="gemma3n", messages=[{"role": "user", "content": "x"}], max_tokens=1
    )
    assert answer.usage.completion_tokens == 1


def _body(**changes: Any) -> dict[str, Any]:
    body = {"model": "gemma3n", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, **changes}
    return {name: value for name, value in body.items() if value is not ...}


def _picture(data: bytes) -> list[dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return _pictures(url)


def _pictures(*urls: str) -> list[dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "?"}, *parts]}]


BOMB = png(header(50_000, 50_000), (b"IDAT", zlib.compress(b"\0" * 10**6)), (b"IEND", b""))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (_body(messages=...), "messages"),
        (_body(messages=[]), "messages"),
        (_body(messages=[{"role": "wizard", "content": "Hi"}]), "messages[0].role"),
        (_body(messages=[{"role": "user", "content": 5}]), "messages[0].content"),
        (_body(messages=[{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
        (_body(messages=_pictures("data:image/png;base64,%%%")), PART),
        (_body(messages=_picture(b"this is no picture")), PART),
        (_body(messages=_picture(BOMB)), PART),
        (_body(messages=_pictures("http://127.0.0.1/cat.png")), PART),
        (_body(temperature=5), "temperature"),
        (_body(temperature="warm"), "temperature"),
        (_body(top_p=-0.1), "top_p"),
        (_body(max_tokens=0), "max_tokens"),
        (_body(max_tokens=-2), "max_tokens"),
        (_body(stop=[str(i) for i in range(17)]), "stop"),
        (_body(frobnicate=1), "frobnicate"),
        (_body(stream_options={"include_usage": "yes"}), "stream_options"),
    ],
)
def test_bad_input_names_its_parameter(stack: Stack, body: dict[str, Any], param: str) -> None:
    answer = httpx.post(stack.url + CHAT, json=body, timeout=60)
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"].startswith(param), error
    assert error["type"] == "invalid_request_error"


def test_a_truncated_png_names_its_content_part(stack: Stack, red_image: str) -> None:
    data = base64.b64decode(red_image.split(",")[1])
    answer = httpx.post(stack.url + CHAT, json=_body(messages=_picture(data[:-30])), timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(PART)


def test_more_images_than_allowed(stack: Stack, pixel: str) -> None:
    answer = httpx.post(stack.url + CHAT, json=_body(messages=_pictures(*[pixel] * 17)), timeout=60)
    assert answer.status_code == 400
    assert "16" in answer.json()["error"]["message"]


def test_malformed_json(stack: Stack) -> None:
    answer = httpx.post(stack.url + CHAT, content=b'{"model": "gemma3n", ', headers=JSON, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_prompt_longer_than_the_context_states_both_numbers(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gemma3n", messages=[{"role": "user", "content": "~" * 5000}])
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    assert "4096" in caught.value.message
    assert "50" in caught.value.message


def test_megabytes_of_text_do_not_delay_others(stack: Stack) -> None:
    body = _body(messages=[{"role": "user", "content": "x" + " " * 20_000_000 + "y"}])
    answer = httpx.post(stack.url + CHAT, json=body, timeout=60)
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_an_image_padded_with_spaces_does_not_delay_others(stack: Stack) -> None:
    padded = b"GIF89a" + b"   \t   " + b" " * 200_000 + b"," + bytes(4) + b"\1\0\1\0\0\2\2L\1\0;"
    answer = httpx.post(stack.url + CHAT, json=_body(messages=_picture(padded)), timeout=20)
    assert answer.status_code in (200, 400)


def test_a_refused_stream_has_an_error_status(client: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model="gemma3n", messages=[{"role": "user", "content": "~" * 5000}], stream=True
        )


def test_an_unknown_model(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "x"}])
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", CHAT, 405), ("PUT", "/v1/models", 405)],
)
def test_wrong_routes_and_methods(stack: Stack, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, stack.url + path, timeout=10)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(stack: Stack) -> None:
    head = [
        f"POST {CHAT} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {10**10}",
    ]
    with socket.create_connection(("127.0.0.1", stack.api_port), timeout=10) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_of_unknown_length_is_refused_at_the_limit(stack: Stack) -> None:
    head = [
        f"POST {CHAT} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
    ]
    mebibyte = f"{2**20:x}\r\n".encode() + b"x" * 2**20 + b"\r\n"
    with socket.create_connection(("127.0.0.1", stack.api_port), timeout=30) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        for _ in range(66):  # the limit is 64; the end of the body is never sent
            connection.sendall(mebibyte)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_thirty_megabytes_of_images_are_accepted(stack: Stack) -> None:
    row = zlib.compress(b"\0" + b"\xff\0\0" * 8)
    picture = png(header(8, 1), (b"prVt", b"x" * 10 * 2**20), (b"IDAT", row), (b"IEND", b""))
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    answer = httpx.post(stack.url + CHAT, json=_body(messages=_pictures(url, url, url)), timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] > 48
