"""The hub's real client against a hub of our own on this machine; each case in its own process."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gemma_launcher.byte_units import format_bytes

FETCH = """
import sys
from gemma_launcher.checkpoints import hub
from gemma_launcher.errors import CommandError
try:
    print("fetched", hub.fetch_checkpoint(sys.argv[1], None, lambda text: print("said", text)))
except CommandError as error:
    print("refused", error)
"""
COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Has one model per folder of ``files``; the others are unknown, or gated."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.fetched: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        in_api = parts[:2] == ["api", "models"]
        name, rest = "/".join(parts[2:4] if in_api else parts[:2]), parts[4 if in_api else 2 :]
        if name not in self.server.files:
            return self.reply(404, {"X-Error-Code": "RepoNotFound"})
        if name in self.server.gated and rest:
            return self.reply(403, {"X-Error-Code": "GatedRepo"})
        return self.tell(name, rest) if in_api else self.send(name, rest[-1])

    def tell(self, name: str, rest: list[str]) -> None:
        files = self.server.files[name]
        if rest[:1] == ["tree"]:
            rows = [{"type": "file", "path": k, "size": len(v), "oid": digest(v)} for k, v in files.items()]
            return self.reply(200, {}, json.dumps(rows).encode())
        siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
        return self.reply(200, {}, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())

    def send(self, name: str, path: str) -> None:
        data = self.server.files[name].get(path)
        if data is None:
            return self.reply(404, {"X-Error-Code": "EntryNotFound"})
        if self.command == "GET":
            self.server.fetched.append(path)
        return self.reply(200, {"ETag": f'"{digest(data)}"', "X-Repo-Commit": COMMIT}, data)

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"{}") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def our_hub(checkpoint_folder: Path) -> Iterator[Hub]:
    with Hub() as server:
        files = {path.name: path.read_bytes() for path in checkpoint_folder.iterdir()}
        server.files["acme/toy"] = {**files, "pytorch_model.bin": b"the same weights again"}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


Fetch = Callable[..., list[str]]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    def run(repo_id: str, endpoint: str, **more: str) -> list[str]:
        settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), **more}
        # A token of this machine's user is not for our hub.
        env = {**os.environ, **settings, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
        done = subprocess.run(
            [sys.executable, "-c", FETCH, repo_id], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    return run


def test_a_model_is_downloaded_once(our_hub: Hub, fetch: Fetch) -> None:
    said, fetched = fetch("acme/toy", our_hub.url)
    assert said.startswith("said downloading acme/toy: ")
    assert fetched.startswith("fetched ")
    assert sorted(our_hub.fetched) == ["config.json", "model.safetensors", "tokenizer.json"]
    our_hub.shutdown()
    assert fetch("acme/toy", our_hub.url, HF_HUB_OFFLINE="1") == [fetched]


def test_a_damaged_cache_is_not_used(our_hub: Hub, fetch: Fetch) -> None:
    folder = Path(fetch("acme/toy", our_hub.url)[-1].removeprefix("fetched "))
    (folder / "model.safetensors").unlink()
    assert fetch("acme/toy", our_hub.url)[-1] == f"fetched {folder}"
    (folder / "model.safetensors").unlink()
    assert "refused acme/toy is not in the local cache" in fetch("acme/toy", "http://127.0.0.1:9")[-1]


def test_an_unknown_model(our_hub: Hub, fetch: Fetch) -> None:
    (refusal,) = fetch("acme/none", our_hub.url)
    assert refusal.startswith("refused MODEL_NAME=acme/none: the hub has no such model, or it is private")


def test_a_gated_model(our_hub: Hub, fetch: Fetch) -> None:
    our_hub.gated.add("acme/toy")
    (refusal,) = fetch("acme/toy", our_hub.url)
    assert refusal.startswith("refused acme/toy is gated: accept its licence at ")
    assert "HF_TOKEN" in refusal


def test_an_unsupported_model_is_refused_before_its_weights_are_downloaded(
    our_hub: Hub, fetch: Fetch
) -> None:
    our_hub.files["acme/toy"]["config.json"] = b'{"model_type": "llama"}'
    (refusal,) = fetch("acme/toy", our_hub.url)
    assert refusal.startswith('refused acme/toy cannot be served: config.json has model_type "llama"')
    assert our_hub.fetched == ["config.json"]


def test_truncated_weights_on_the_hub(our_hub: Hub, fetch: Fetch) -> None:
    our_hub.files["acme/toy"]["model.safetensors"] = our_hub.files["acme/toy"]["model.safetensors"][:-1]
    assert "model.safetensors is incomplete or damaged" in fetch("acme/toy", our_hub.url)[-1]


GGUF = b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(8)
"""A valid header without metadata and tensors."""


def test_one_of_several_gguf_files_is_downloaded_once(our_hub: Hub, fetch: Fetch) -> None:
    names = ("m-Q4_0.gguf", "m-Q8_0.gguf", "mmproj-F16.gguf", "README.md")
    our_hub.files["acme/gguf"] = {name: GGUF + name.encode() for name in names}
    said, fetched = fetch("acme/gguf:q8_0", our_hub.url)
    assert said.startswith("said downloading acme/gguf: ")
    assert fetched.endswith("/m-Q8_0.gguf")
    assert sorted(our_hub.fetched) == ["m-Q8_0.gguf", "mmproj-F16.gguf"]
    our_hub.shutdown()
    assert fetch("acme/gguf:Q8_0", our_hub.url, HF_HUB_OFFLINE="1") == [fetched]
    assert "is not in the local cache" in fetch("acme/gguf:Q4_0", our_hub.url, HF_HUB_OFFLINE="1")[-1]


def test_a_format_has_to_be_named_if_there_are_several(our_hub: Hub, fetch: Fetch) -> None:
    our_hub.files["acme/gguf"] = dict.fromkeys(("m-Q4_0.gguf", "m-Q8_0.gguf"), GGUF)
    for name in ("acme/gguf", "acme/gguf:Q3_K"):
        (refusal,) = fetch(name, our_hub.url)
        assert refusal.endswith("after a colon, as in acme/gguf:Q4_K_M: Q4_0, Q8_0")
    assert our_hub.fetched == []
    our_hub.files["acme/gguf"].pop("m-Q8_0.gguf")
    assert fetch("acme/gguf", our_hub.url)[-1].endswith("/m-Q4_0.gguf")


def test_safetensors_are_preferred(our_hub: Hub, fetch: Fetch) -> None:
    our_hub.files["acme/toy"]["toy-Q4_0.gguf"] = GGUF
    fetch("acme/toy", our_hub.url)
    assert sorted(our_hub.fetched) == ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("more", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_no_network(fetch: Fetch, more: dict[str, str]) -> None:
    (refusal,) = fetch("acme/toy", "http://127.0.0.1:9", **more)
    assert refusal.startswith("refused acme/toy is not in the local cache, and the hub cannot be reached (")
    assert refusal.endswith("set MODEL_NAME to a folder that contains a checkpoint")


@pytest.mark.parametrize(
    ("count", "text"), [(5, "5 bytes"), (4_485_048, "4.5 MB"), (15_700_000_000, "15.7 GB"), (2_000, "2.0 kB")]
)
def test_sizes(count: int, text: str) -> None:
    assert format_bytes(count) == text
