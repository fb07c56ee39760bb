"""The health check, against a server that answers as it is told."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stack import ROOT, free_ports


@dataclass
class Server:
    """What it is asked, and what it answers."""

    port: int = 0
    status: int = 200
    text: str = "{}"
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def check(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        ports = ("API_PORT", "GEMMA_TRITON_HTTP_PORT", "PLAYGROUND_PORT")
        variables = {**dict.fromkeys(ports, str(self.port)), **environment}
        return subprocess.run(
            [sys.executable, ROOT / "deploy" / "healthy.py", *words],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            told.asked.append((self.command, self.path, body))
            self.send_response(told.status)
            self.end_headers()
            self.wfile.write(told.text.encode())

        do_GET = do_POST = answer  # noqa: N815 - the names are http.server's

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        told.port = listening.server_port
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield told
        listening.shutdown()


def test_the_gateway_is_asked_whether_it_is_ready(server: Server) -> None:
    assert server.check("gateway").returncode == 0
    assert server.asked == [("GET", "/health/ready", "")]


def test_the_model_is_asked_who_it_is(server: Server) -> None:
    assert server.check("model").returncode == 0
    assert server.asked == [("POST", "/v2/models/gemma3n/generate", '{"op": "describe"}')]


def test_the_playground_is_asked_for_its_page(server: Server) -> None:
    assert server.check("playground").returncode == 0
    assert server.asked == [("GET", "/", "")]


def test_a_proxy_is_not_used(server: Server) -> None:
    (nobody,) = free_ports(1)
    assert server.check("gateway", http_proxy=f"http://127.0.0.1:{nobody}").returncode == 0


def test_an_error_is_reported_as_unhealthy(server: Server) -> None:
    server.status, server.text = 503, "the model is loading"
    run = server.check("gateway")
    assert (run.returncode, run.stdout) == (1, "503: the model is loading\n")


def test_nobody_there(server: Server) -> None:
    server.port = free_ports(1)[0]
    run = server.check("gateway")
    assert run.returncode == 1
    assert "refused" in run.stdout


@pytest.mark.parametrize(
    ("text", "ends"),
    [("Stub process 'gemma3n_0_0' is not healthy.", True), ("the queue is full", False)],
)
def test_only_a_model_that_is_gone_for_good_is_ended(server: Server, text: str, ends: bool) -> None:
    server.status, server.text = 500, text
    with subprocess.Popen(["sleep", "60"]) as victim:
        try:
            run = server.check("model", "--end", str(victim.pid))
            assert run.returncode == 1
            assert (victim.wait(5) < 0) if ends else (victim.poll() is None)
        finally:
            victim.kill()
