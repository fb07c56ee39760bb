"""Without Compose: ``docker run`` of each image, on the machine's network and on one of its own."""

from collections.abc import Iterator

import httpx
import pytest

from engine import Engine
from engine_stack import API_URL, CHAT, PAGE_URL, QUESTION, START_S, Containers
from stack import eventually

NAMES = ("manual-triton", "manual-api", "manual-playground")
NETWORK = "manual"
CACHE = "gemma-triton-test_models:/cache"
"""The project's volume, so that the kernels are not compiled again."""


@pytest.fixture
def by_hand(volumes: Containers) -> Iterator[Engine]:
    """An engine on which Compose runs nothing; the containers and the network of the test go afterwards."""
    volumes.compose("down", "--timeout", "20")
    try:
        yield volumes.engine
    finally:
        volumes.engine.docker("rm", "--force", "--volumes", *NAMES)
        if NETWORK in volumes.engine.docker("network", "ls", "--format", "{{.Name}}").splitlines():
            volumes.engine.docker("network", "rm", NETWORK)


def _run(engine: Engine, name: str, *arguments: str) -> None:
    engine.docker("run", "--detach", "--name", name, *arguments)


def _is_healthy(engine: Engine, name: str) -> bool:
    return bool(engine.inspect(name)["State"]["Health"]["Status"] == "healthy")


def _answers_and_stops(engine: Engine) -> None:
    for name in NAMES:
        healthy = eventually(lambda name=name: _is_healthy(engine, name), START_S)
        assert healthy, engine.docker("logs", "--tail", "50", name)
    response = httpx.post(CHAT, json=QUESTION, timeout=60, trust_env=False)
    assert response.json()["usage"]["completion_tokens"] > 0
    assert httpx.get(PAGE_URL, timeout=10, trust_env=False).status_code == 200
    engine.docker("stop", "--time", "30", *NAMES)
    assert [engine.inspect(name)["State"]["ExitCode"] for name in NAMES] == [0, 0, 0]


def test_the_commands_of_the_docs(by_hand: Engine) -> None:
    """The API finds Triton at the published ports of this machine, with no setting."""
    sandbox = ("--read-only", "--tmpfs", "/tmp", "--network", "host")
    ports = ("-p", "127.0.0.1:8000-8002:8000-8002")
    _run(by_hand, "manual-triton", "--shm-size=1g", *ports, "-v", CACHE, "gemma-triton")
    _run(by_hand, "manual-api", *sandbox, "gemma-triton-api")
    page = ("-e", "PLAYGROUND_HOST=127.0.0.1", "-e", f"OPENAI_BASE_URL={API_URL}/v1")
    _run(by_hand, "manual-playground", *sandbox, *page, "gemma-triton-playground")
    _answers_and_stops(by_hand)


def test_a_network_of_its_own(by_hand: Engine) -> None:
    """Nothing of Triton is published; each container finds the next by its name."""
    by_hand.docker("network", "create", NETWORK)
    on_it = ("--network", NETWORK)
    triton = ("--network-alias", "triton", "--shm-size=1g", "-v", CACHE)
    _run(by_hand, "manual-triton", *on_it, *triton, "gemma-triton")
    addresses = ("-e", "TRITON_GRPC_URL=triton:8001", "-e", "TRITON_HTTP_URL=http://triton:8000")
    sandbox = ("--read-only", "--tmpfs", "/tmp")
    api = (*on_it, "--network-alias", "api", "-p", "127.0.0.1:8080:8080", *sandbox, *addresses)
    _run(by_hand, "manual-api", *api, "gemma-triton-api")
    page = (*on_it, "-p", "127.0.0.1:7860:7860", *sandbox)
    _run(by_hand, "manual-playground", *page, "gemma-triton-playground")
    _answers_and_stops(by_hand)
