"""The launcher's shutdown by signals and by kill -9, with the real tritonserver: nothing is left."""

import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from packages.launcher.tests import stack
from packages.launcher.tests.stack import Leftovers, RunningLauncher, until, within

GRACE_S = 3
"""API_SHUTDOWN_SECONDS when nothing is set."""


@pytest.mark.parametrize(
    "moment_s", [0.9, None, *(pytest.param(moment, marks=pytest.mark.long) for moment in (0.3, 2.0))]
)
def test_kill_9_of_the_launcher_at_any_moment_leaves_nothing(
    moment_s: float | None,
    tmp_path: Path,
    toy_flags: tuple[str, ...],
    toy_playground: Path,
    leftovers: Leftovers,
) -> None:
    environment = {"TMPDIR": str(tmp_path)}
    with stack.started(tmp_path, *toy_flags, environment=environment, playground=toy_playground) as served:
        if moment_s is None:
            until(served, "Started HTTPService", limit_s=60)
        else:
            time.sleep(moment_s)
        served.process.kill()
        served.process.wait()
    deadline = time.monotonic() + 10
    while leftovers(served.process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert {path.name for path in tmp_path.iterdir()} == {"serve.log"}
    assert ports_are_free(served)


def test_signals_while_the_model_loads_end_everything(
    tmp_path: Path, toy_flags: tuple[str, ...], leftovers: Leftovers
) -> None:
    with stack.started(tmp_path, *toy_flags, environment={"TOY_LOAD_S": "60"}) as served:
        until(served, "the toy is imported", limit_s=30)
        with within(10):
            served.process.send_signal(signal.SIGINT)
            served.process.send_signal(signal.SIGINT)  # the second one: at once
            assert served.process.wait(10) == 0
    assert leftovers(served.process.pid) == []


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_sigterm_with_16_streams_open_leaves_nothing(
    rounds: int,
    tmp_path: Path,
    toy_flags: tuple[str, ...],
    toy_playground: Path,
    leftovers: Leftovers,
) -> None:
    """Short responses are completed, long ones end with an error event; then nothing is left."""
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        environment = {"TMPDIR": str(folder)}
        with stack.running(folder, *toy_flags, environment=environment, playground=toy_playground) as served:
            endings, served_s = sixteen_streams(served)
        assert endings[1::2] == ["error"] * 8, served.output
        assert {"finished"} <= set(endings[::2]) <= {"finished", "error"}, served.output
        assert served_s < GRACE_S + 5
        assert leftovers(served.process.pid) == []
        assert {path.name for path in folder.iterdir()} == {"serve.log"}
        assert ports_are_free(served)


def sixteen_streams(served: RunningLauncher) -> tuple[list[str], float]:
    """How 16 responses end after SIGTERM, and how long the launcher ran; a new request gets 503."""
    begun = threading.Semaphore(0)
    with (
        httpx.Client(base_url=served.api, timeout=30, trust_env=False) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        streams = [pool.submit(stream, client, pieces, begun) for pieces in (5, 500) * 8]
        for _ in streams:
            assert begun.acquire(timeout=20)
        began = time.monotonic()
        served.process.terminate()
        while (
            client.post("/v1/chat/completions", json=asking(1)).status_code != httpx.codes.SERVICE_UNAVAILABLE
        ):
            assert time.monotonic() - began < GRACE_S / 2, "the signal takes a moment to get there, no more"
        assert served.process.wait(10) == 0
        return [ending.result() for ending in streams], time.monotonic() - began


def stream(client: httpx.Client, pieces: int, begun: threading.Semaphore) -> str:
    """How a streamed response ends."""
    ending = "cut off"
    with client.stream("POST", "/v1/chat/completions", json={**asking(pieces), "stream": True}) as answer:
        for number, line in enumerate(answer.iter_lines()):
            if number == 0:
                begun.release()
            if line.startswith('data: {"error"'):
                ending = "error"
            elif line == "data: [DONE]" and ending != "error":
                ending = "finished"
    return ending


def asking(pieces: int) -> dict[str, object]:
    return {
        "model": "toy-checkpoint",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": pieces,
    }


def ports_are_free(served: RunningLauncher) -> bool:
    urls = served.api, served.triton_http, f"http://{served.triton_grpc}", served.metrics, served.playground
    for url in filter(None, urls):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", httpx.URL(url).port or 0))
    return True
