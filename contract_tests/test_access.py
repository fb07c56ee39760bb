"""Access with API keys: a second gateway with keys uses the Triton of the shared stack."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import openai
import pytest

from server import HI, MODEL
from spec import contract
from stack import ROOT, Stack, eventually, free_ports

KEYS = ("sk-right-one", "sk-another")
OPEN = ("/health", "/health/live", "/health/ready")
CLOSED = [
    (method, path.replace("{model}", MODEL))
    for path, methods in contract()["paths"].items()
    for method in methods
    if path not in OPEN
] + [("get", "/metrics"), ("get", "/"), ("get", "/docs"), ("get", "/openapi.json"), ("post", "/v1/nowhere")]
WRONG = {
    "none": {},
    "no key after the word": {"authorization": "Bearer"},
    "a wrong one": {"authorization": "Bearer sk-wrong"},
    "in other case": {"authorization": f"Bearer {KEYS[0].upper()}"},
    "a part of it": {"authorization": f"Bearer {KEYS[0][:-1]}"},
    "with more": {"authorization": f"Bearer {KEYS[0]}x"},
    "both": {"authorization": f"Bearer {','.join(KEYS)}"},
    "another scheme": {"authorization": f"Basic {KEYS[0]}"},
    "a wrong one in Anthropic's header": {"x-api-key": f"{KEYS[0]}x"},
    "another header": {"api-key": KEYS[0]},
}


@pytest.fixture(scope="module")
def guarded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway with API keys."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    settings = {
        "API_PORT": str(port),
        "API_KEYS": ",".join(KEYS),
        "TRITON_GRPC_URL": f"127.0.0.1:{stack.triton_grpc_port}",
    }
    with (tmp_path_factory.mktemp("guarded") / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gemma_gateway"],
            cwd=ROOT,
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def ready() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
        return False

    try:
        assert eventually(ready, 60)
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_nothing_but_health_is_open(guarded: str, method: str, path: str) -> None:
    answer = httpx.request(method, guarded + path, timeout=10)
    error = answer.json()["error"]
    assert answer.status_code == 401
    assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")


@pytest.mark.parametrize("path", OPEN)
def test_health_is_open(guarded: str, path: str) -> None:
    assert httpx.get(guarded + path, timeout=10).status_code == 200


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_wrong_keys(guarded: str, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{guarded}/v1/models", headers=headers, timeout=10)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "sk-" not in answer.text, "an answer repeats no key"


@pytest.mark.parametrize("key", KEYS)
def test_right_keys(guarded: str, key: str) -> None:
    with openai.OpenAI(base_url=f"{guarded}/v1", api_key=key, max_retries=0) as client:
        assert client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1).choices
    with (
        openai.OpenAI(base_url=f"{guarded}/v1", api_key=key.title(), max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def cached_tokens(url: str, key: str, prompt: list[int]) -> int:
    """The number of tokens of a prompt that were cached. The generated token is appended to the prompt."""
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 1, "return_token_ids": True}
    answer = httpx.post(
        f"{url}/v1/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=30
    )
    assert answer.is_success, answer.text
    completion = answer.json()
    prompt += completion["choices"][0]["token_ids"]
    return int(completion["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_the_prefix_cache_is_not_shared_between_keys(guarded: str) -> None:
    prompt = list(range(300, 360))
    assert cached_tokens(guarded, KEYS[0], prompt) == 0
    assert cached_tokens(guarded, KEYS[1], [*prompt, 7]) == 0
    assert cached_tokens(guarded, KEYS[0], [*prompt, 7]) == 48, "complete blocks of 16 tokens"
