"""Triton, the gateway and the playground, started together as compose would start their containers."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import httpx
import psutil
import pytest

from containers import (
    API,
    PLAYGROUND,
    SHARED_MEMORY,
    TRITON,
    Server,
    gateway,
    health,
    playground,
    started,
    status,
    wait,
    with_tmp,
)
from dockerfile import CHECKOUT
from gemma_gateway.settings import GatewaySettings
from gemma_launcher.checkpoints import resolver
from gemma_launcher.processes import orphan_cleanup, triton_server
from gemma_launcher.processes.triton_address import triton_address
from gemma_launcher.settings import LauncherSettings
from stack import ROOT, eventually

TINY = LauncherSettings(model_name=resolver.TINY_CHECKPOINT)


def test_triton_is_started_as_the_launcher_starts_it(tmp_path: Path) -> None:
    """Only where its files lie and how long it may take to end are the image's own."""
    wheel = triton_server.find_wheel()
    address = triton_address(LauncherSettings(), tmp_path)
    ours = _flags(
        list(triton_server.server_command(LauncherSettings(), address, wheel, tmp_path, tmp_path, "name"))
    )
    images = _flags(TRITON.image.argv("ENTRYPOINT") + TRITON.image.argv("CMD"))
    assert int(images["--exit-timeout-secs"]) >= int(ours["--exit-timeout-secs"])
    for own in ("--model-repository", "--exit-timeout-secs"):
        del images[own]
    assert images.items() <= ours.items()


def _flags(argv: list[str]) -> dict[str, str]:
    """``--a=b`` and ``--backend-config=python,a=b`` by name."""
    return {name: value for name, _, value in (word.rpartition("=") for word in argv[1:])}


@pytest.mark.timeout(400)
def test_the_whole_stack_as_compose_would_start_it(tmp_path: Path) -> None:
    server, place = Server(tmp_path), with_tmp(CHECKOUT, tmp_path)
    assert server.environment["MODEL_NAME"] == str(ROOT / resolver.BUNDLED_CHECKPOINT)
    server.environment["MODEL_NAME"] = str(resolver.resolve_checkpoint(TINY, os.environ, print).folder)
    api_argv, api_environment = gateway(place, server.grpc)
    page_argv, page_environment = playground(place)
    url = f"http://127.0.0.1:{api_environment['API_PORT']}"
    logs = [tmp_path / "api.log", tmp_path / "page.log"]
    with (
        server.started() as process,
        started(api_argv, api_environment, logs[0]) as api,
        started(page_argv, page_environment, logs[1]) as page,
    ):
        wait(api, lambda: health(API.image, place, api_environment)[1].startswith("503:"), logs[0])
        wait(process, lambda: server.health("0")[0] == 0, server.log)
        wait(api, lambda: status(f"{url}/health/ready") == 200, logs[0])
        wait(page, lambda: health(PLAYGROUND.image, place, page_environment) == (0, ""), logs[1])
        assert health(API.image, place, api_environment) == (0, "")
        _answers(url)
        run_the_questions_of_the_docs(server.http, api_environment["API_PORT"])
        _the_gateway_stops_beside_an_open_answer(api, url)
        page.send_signal(signal.SIGTERM)
        assert page.wait(30) == 0, logs[1].read_text()[-4000:]
        _a_dead_stub_ends_the_server(server, process)
    assert not list(orphan_cleanup.SHARED_MEMORY.glob(f"{SHARED_MEMORY}*"))
    assert health(API.image, place, api_environment)[0] == 1
    assert health(PLAYGROUND.image, place, page_environment)[0] == 1


CHAT = "/v1/chat/completions"
QUESTION = {"model": "gemma3n", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}


def _answers(url: str) -> None:
    answer = httpx.post(f"{url}{CHAT}", json=QUESTION, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.text)["usage"]["completion_tokens"] > 0


def run_the_questions_of_the_docs(triton_port: int, api_port: str) -> None:
    """The curl calls of docs/operations.md, as they are written but for the ports."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    calls = re.findall(r"^curl (http\S+)$", page, re.MULTILINE)
    assert len(calls) >= 3
    for call in calls:
        here = call.replace("localhost:8000", f"127.0.0.1:{triton_port}")
        here = here.replace("localhost:8080", f"127.0.0.1:{api_port}")
        subprocess.run(["curl", "-sS", "--fail", "--noproxy", "*", here], check=True, capture_output=True)


def _the_gateway_stops_beside_an_open_answer(api: psutil.Popen, url: str) -> None:
    """As ``docker stop`` does it: 503 at once, the answer goes on for a while, and the exit code is 0."""
    long = {**QUESTION, "max_tokens": 4000, "ignore_eos": True, "stream": True}
    client = httpx.Client(base_url=url, timeout=30, trust_env=False)
    with client, client.stream("POST", CHAT, json=long) as answer:
        lines = answer.iter_lines()
        next(lines)
        told = time.monotonic()
        api.send_signal(signal.SIGTERM)
        assert eventually(lambda: client.post(CHAT, json=QUESTION).status_code == 503, 2)
        *_, last = filter(None, lines)
    assert last.startswith(('data: {"error"', "data: [DONE]"))
    assert api.wait(10) == 0
    assert time.monotonic() - told < GatewaySettings().shutdown_seconds + 5


def _a_dead_stub_ends_the_server(server: Server, process: psutil.Popen) -> None:
    """The health check ends what cannot heal, and the restart policy would start it anew."""
    for stub in process.children():
        stub.kill()
    code, said = server.health(str(process.pid))
    assert code == 1
    assert f"ending process {process.pid}" in said
    process.wait(30)
