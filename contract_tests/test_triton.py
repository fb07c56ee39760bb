"""Clients that use Triton directly."""

import json

import httpx
import psutil
import pytest

from stack import Stack, eventually

MODEL = "/v2/models/gemma3n"


def test_the_banner_has_the_address_of_the_playground(stack: Stack) -> None:
    assert eventually(lambda: "curl" in stack.log.read_text(encoding="utf-8"), 5)
    banner = stack.log.read_text(encoding="utf-8")
    for part in (stack.url, stack.triton_url, "gemma3n-tiny", "cpu", "MB"):
        assert part in banner


def test_readiness(stack: Stack) -> None:
    for path in ("/v2/health/ready", f"{MODEL}/ready"):
        assert httpx.get(stack.triton_url + path, timeout=10).status_code == 200


def test_generate(stack: Stack) -> None:
    answer = httpx.post(
        f"{stack.triton_url}{MODEL}/generate", json={"prompt": "Hi", "max_tokens": 20}, timeout=60
    )
    assert answer.status_code == 200
    chunk = json.loads(answer.json()["chunk"])
    assert chunk["finish_reason"] in ("stop", "length")
    assert 0 < chunk["usage"]["completion_tokens"] <= 20


def test_generate_stream(stack: Stack) -> None:
    # Long enough that pieces joined for a slow reader are still many.
    body = {"prompt": "Hi", "max_tokens": 200, "stream": True, "temperature": 0.0, "ignore_eos": True}
    answer = httpx.post(f"{stack.triton_url}{MODEL}/generate_stream", json=body, timeout=60)
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert len(events) > 5
    del body["stream"]
    whole = httpx.post(f"{stack.triton_url}{MODEL}/generate", json=body, timeout=60).json()
    assert "".join(event["text"] for event in events) == whole["text"]
    last, only = json.loads(events[-1]["chunk"]), json.loads(whole["chunk"])
    assert last["finish_reason"] == only["finish_reason"] == "length"
    assert last["usage"]["completion_tokens"] == only["usage"]["completion_tokens"] == 200


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"prompt": "Hi", "max_tokens": 0}, "max_tokens: "),
        ({"prompt": "Hi", "temperature": 5.0}, "temperature: "),
        ({"prompt": "Hi", "frobnicate": 1}, "frobnicate: "),
        ({"max_tokens": 3}, "exactly one of prompt, messages"),
        ({"prompt": "<image_soft_token>", "images": ["bm8gcGljdHVyZQ=="]}, "images[0]: "),
        ({"messages": '[{"role": "wizard", "content": ""}]'}, "messages[0].role: "),
    ],
)
def test_bad_input_names_the_field(stack: Stack, body: dict[str, object], says: str) -> None:
    answer = httpx.post(f"{stack.triton_url}{MODEL}/generate", json=body, timeout=60)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_every_port_is_bound_to_loopback_only(stack: Stack) -> None:
    listening = [
        connection.laddr
        for process in stack.tree()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.port for address in listening} >= stack.ports
    # gRPC listens on an IPv6 socket, where loopback is written so
    assert {address.ip for address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}
