"""What the containers do when something goes wrong: each fault, and the behaviour that the docs promise."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from engine import Engine
from engine_stack import (
    API,
    PLAYGROUND,
    QUESTION,
    SERVICES,
    TRITON,
    Containers,
    answers,
    ask,
    load,
)
from image_files import data_uri
from stack import eventually

STUB = "triton_python_backend_stub"
BACK_S = 180
"""Within which a killed process is healthy again; about 40 s on two busy cores."""


def _report(fault: str, **figures: object) -> None:
    """For ``-s``: what the log of the project quotes."""
    print(f"\n{fault}: {', '.join(f'{name} {value}' for name, value in figures.items())}")


def _asked_until_it_answers(seconds: float) -> tuple[list[int], float]:
    """The statuses until a request is answered again; each 503 says when to come back."""
    began, seen = time.monotonic(), [0]
    while seen[-1] != 200 or len(seen) < 3:
        assert time.monotonic() - began < seconds, seen
        status, headers = ask()
        assert status in (200, 503), status
        assert status == 200 or int(headers["Retry-After"]) > 0
        seen.append(status)
        time.sleep(0.3)
    return seen[1:], time.monotonic() - began


def test_a_killed_stub_is_started_again_and_requests_meanwhile_get_503(stack: Containers) -> None:
    before = stack.inspect(TRITON)["RestartCount"]
    stack.kill(TRITON, STUB)
    assert eventually(lambda: ask()[0] == 503, 30)
    seen, seconds = _asked_until_it_answers(BACK_S)
    stack.wait_healthy(TRITON, seconds=30)
    assert stack.inspect(TRITON)["RestartCount"] == before + 1
    _report("stub killed", answers_503=seen.count(503), answered_after=f"{seconds:.0f} s")


@pytest.mark.parametrize(
    ("service", "allowed"),
    [
        (TRITON, {"error event", "503 with Retry-After", "complete", "left"}),
        (API, {"broken", "no connection", "503 with Retry-After", "complete", "left"}),
        (PLAYGROUND, {"complete", "left"}),
    ],
)
def test_a_container_killed_under_load_comes_back(stack: Containers, service: str, allowed: set[str]) -> None:
    before = stack.inspect(service)["RestartCount"]
    with load() as clients:
        stack.kill(service)
        assert eventually(lambda: stack.inspect(service)["RestartCount"] == before + 1, 30)
        seconds = stack.wait_healthy(service, seconds=BACK_S)
        assert eventually(answers, 30)
    assert set(clients.outcomes) <= allowed, clients.outcomes
    _report(f"{service} killed under load", healthy_after=f"{seconds:.0f} s", streams=dict(clients.outcomes))


def _all_streams_are_told(stack: Containers, *command: str) -> None:
    """Each of four open streams ends with an error event or complete, and no process needs to be killed."""
    with load() as clients:
        began = time.monotonic()
        states = _exit_codes_during(stack, *command)
        seconds = time.monotonic() - began
    ended = clients.outcomes["error event"] + clients.outcomes["complete"]
    assert ended >= 4, clients.outcomes
    assert not clients.outcomes["cut off"], clients.outcomes
    assert states == dict.fromkeys(SERVICES, "0")
    _report(" ".join(command), took=f"{seconds:.0f} s", exit_codes=states, streams=dict(clients.outcomes))


def _exit_codes_during(stack: Containers, *command: str) -> dict[str, str]:
    """The containers' exit codes, also of those that the command removes: from the engine's events."""
    since = stack.engine.docker("info", "--format", "{{.SystemTime}}")
    stack.compose(*command)
    until = stack.engine.docker("info", "--format", "{{.SystemTime}}")
    label = "com.docker.compose.service"
    form = f'{{{{index .Actor.Attributes "{label}"}}}} {{{{.Actor.Attributes.exitCode}}}}'
    filters = ("--filter", "event=die", "--filter", f"label={label}")
    events = stack.engine.docker("events", "--since", since, "--until", until, *filters, "--format", form)
    return dict(line.split(" ", 1) for line in events.splitlines())


def test_stopped_under_load_and_started(stack: Containers) -> None:
    _all_streams_are_told(stack, "stop")
    stack.compose("start")
    _report("start", healthy_after=f"{stack.wait_healthy():.0f} s")
    assert eventually(answers, 30)


def test_down_under_load(stack: Containers) -> None:
    _all_streams_are_told(stack, "down")


@contextmanager
def _changed(engine: Engine, folder: Path, text: str = "", **shell: str) -> Iterator[Containers]:
    """The project with a second file of Compose, or other variables; gone at the end."""
    file = folder / "override.yml"
    file.write_text(text or "services: {}\n", encoding="utf-8")
    containers = Containers(engine, (file,), shell)
    containers.compose("down", "--timeout", "20")
    try:
        yield containers
    finally:
        containers.compose("down", "--timeout", "20")


FULL_VOLUME = """
services:
  triton-cpu: {volumes: ["full:/cache"]}
volumes:
  full: {driver_opts: {type: tmpfs, device: tmpfs, o: "size=64k,uid=1000,gid=1000"}}
"""
READ_ONLY_CACHE = """
services:
  triton-cpu: {volumes: ["read-only:/cache:ro"]}
volumes:
  read-only:
"""


@pytest.mark.parametrize("text", [FULL_VOLUME, READ_ONLY_CACHE], ids=["full", "read-only"])
def test_without_a_place_for_compiled_kernels_it_serves_and_says_so(
    volumes: Containers, tmp_path: Path, text: str
) -> None:
    with _changed(volumes.engine, tmp_path, text) as containers:
        seconds = containers.up()
        assert answers()
        said = [line for line in containers.log(TRITON).splitlines() if "CPU kernels: not usable" in line]
        assert said
        _report("a cache that cannot be written", healthy_after=f"{seconds:.0f} s", log=said[-1])


@pytest.mark.parametrize("name", ["/app/models/no-such-model", "nobody/no-such-model"])
def test_a_wrong_model_is_named_in_the_log(volumes: Containers, tmp_path: Path, name: str) -> None:
    with _changed(volumes.engine, tmp_path, MODEL_NAME=name) as containers:
        containers.start(TRITON)
        assert eventually(lambda: containers.inspect(TRITON)["RestartCount"] >= 1, 90)
        log = containers.log(TRITON)
        assert f"there is no folder or hub model '{name}'" in log
        with pytest.raises(AssertionError, match=r"unhealthy|exited|dependency failed"):
            containers.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "20")


def test_too_little_memory_is_seen_by_the_engine(volumes: Containers, tmp_path: Path) -> None:
    limit = "services:\n  triton-cpu: {mem_limit: 256m, memswap_limit: 256m}\n"
    with _changed(volumes.engine, tmp_path, limit) as containers:
        containers.start(TRITON)
        assert eventually(lambda: containers.inspect(TRITON)["RestartCount"] >= 1, 120)
        assert "Stub process 'gemma3n_0_0' is not healthy" in containers.log(TRITON)
        assert eventually(lambda: bool(containers.inspect(TRITON)["State"]["OOMKilled"]), 60)


def test_64_mb_of_shared_memory(volumes: Containers, tmp_path: Path) -> None:
    """Docker's default. Many large images at once: an answer or an error, and the model goes on."""
    with _changed(volumes.engine, tmp_path, "services:\n  triton-cpu: {shm_size: 64mb}\n") as containers:
        containers.up()
        parts = [{"type": "image_url", "image_url": {"url": _incompressible_image()}}]
        question = {**QUESTION, "messages": [{"role": "user", "content": parts}]}
        seen: list[int] = []
        threads = [threading.Thread(target=lambda: seen.append(ask(question)[0])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _report("64 MB of shared memory, 8 images of 12 MB", statuses=seen)
        assert set(seen) <= {200, 400, 413, 500, 503}, seen
        assert eventually(answers, BACK_S)


def _incompressible_image() -> str:
    """Noise: a PNG of 12 MB."""
    return data_uri(Image.frombytes("RGB", (2000, 2000), os.urandom(2000 * 2000 * 3)))
