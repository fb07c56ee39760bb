"""Clients that disconnect, processes that die, servers that start and stop."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from stack import MAKE_SERVE, STOP_SECONDS, Stack, eventually, free_ports, running

CHAT = "/v1/chat/completions"
LONG: dict[str, Any] = {
    "model": "gemma3n",
    "messages": [{"role": "user", "content": "Tell me a story"}],
    "max_tokens": 4000,
    "ignore_eos": True,
}


def _shared_memory(processes: list[psutil.Process]) -> set[Path]:
    """The shared memory files that these processes use."""
    maps = (Path(each.path) for process in processes for each in process.memory_maps())
    return {path for path in maps if path.is_relative_to("/dev/shm")}


def test_a_disconnect_during_a_stream_frees_the_slot_within_a_second(stack: Stack) -> None:
    with httpx.stream("POST", f"{stack.url}{CHAT}", json={**LONG, "stream": True}, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert eventually(lambda: stack.gauge("gemma_requests_running") == 1, 2)
    assert stack.idle(1)


def test_a_disconnect_before_the_response_frees_the_slot_within_a_second(stack: Stack) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{stack.url}{CHAT}", json=LONG, timeout=2)
    assert stack.idle(1)


def test_the_stub_dies_while_streaming(tmp_path: Path) -> None:
    with (
        running(tmp_path / "log", TMPDIR=str(tmp_path), GEMMA_TOWERS="none") as stack,  # starts sooner
        openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client,
    ):
        body = {**LONG}
        extra = {"ignore_eos": body.pop("ignore_eos")}
        with client.chat.completions.create(**body, extra_body=extra, stream=True, timeout=60) as stream:
            events = iter(stream)
            next(events)
            stack.find("triton_python_backend_stub").kill()
            killed = time.monotonic()
            with pytest.raises(openai.APIError):
                list(events)
            assert time.monotonic() - killed < 5

        def answered() -> bool:
            try:
                return bool(client.chat.completions.create(**{**body, "max_tokens": 1}, timeout=10).choices)
            except openai.InternalServerError as error:
                assert error.status_code == 503
                assert int(error.response.headers["retry-after"]) > 0
                return False

        assert eventually(answered, 30 - (time.monotonic() - killed)), stack.tail()

        # ... and a server that hangs is restarted as well
        before = stack.find("tritonserver").pid
        psutil.Process(before).suspend()
        assert eventually(lambda: httpx.get(f"{stack.url}/health", timeout=30).status_code == 503, 30)
        assert eventually(lambda: not psutil.pid_exists(before), 60), stack.tail()
        stack.wait_ready(60)
        assert stack.find("tritonserver").pid != before
        _ends_and_leaves_nothing(stack, tmp_path, signal.SIGTERM)


def test_the_gateway_starts_without_triton(tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    with running(tmp_path / "log", f"--triton-url=127.0.0.1:{nobody}", wait=False) as stack:
        assert eventually(lambda: _status(f"{stack.url}/health/live") == 200, 30), stack.tail()
        answer = httpx.get(f"{stack.url}/health", timeout=10)
        assert answer.status_code == 503
        assert "reached" in answer.text
        answer = httpx.post(f"{stack.url}{CHAT}", json={**LONG, "max_tokens": 1}, timeout=10)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["message"]
        assert stack.stop() == 0


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0


def test_make_serve_responds_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """The README's first command. Ctrl-C is a signal to make as well, which ends by it when all else has."""
    with running(tmp_path / "log", command=MAKE_SERVE, playground=True, TMPDIR=str(tmp_path)) as stack:
        _ends_and_leaves_nothing(stack, tmp_path, signal.SIGINT, code=-signal.SIGINT)


def test_kill_9_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "log", TMPDIR=str(tmp_path)) as stack:
        _ends_and_leaves_nothing(stack, tmp_path, signal.SIGKILL, code=-signal.SIGKILL)


def _ends_and_leaves_nothing(stack: Stack, folder: Path, how: signal.Signals, code: int = 0) -> None:
    """Send a signal during a response; afterwards the temporary folder contains only the log."""
    with httpx.stream("POST", f"{stack.url}{CHAT}", json={**LONG, "stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        processes = stack.tree()
        shared_memory = _shared_memory(processes)
        assert len(processes) >= 4
        assert shared_memory
        started = time.monotonic()
        os.killpg(stack.process.pid, how)
        assert stack.process.wait(STOP_SECONDS) == code
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS - (time.monotonic() - started))
    assert not alive, stack.tail()
    assert eventually(lambda: not any(path.exists() for path in shared_memory), 5)
    assert eventually(lambda: {path.name for path in folder.iterdir()} == {"log"}, 5)
    assert all(_status(f"http://127.0.0.1:{port}/") == 0 for port in stack.ports)
