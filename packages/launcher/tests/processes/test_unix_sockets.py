"""The real tritonserver on Unix sockets, which are used when the API has keys."""

import socket
import tempfile
from pathlib import Path

import httpx
import pytest
from packages.launcher.tests import stack
from packages.launcher.tests.stack import Leftovers, RunningLauncher, tritonserver, until

KEY = {"Authorization": "Bearer sk-1"}
QUESTION = {"model": "toy-checkpoint", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


def answers(served: RunningLauncher) -> bool:
    response = httpx.post(
        f"{served.api}/v1/chat/completions", json=QUESTION, headers=KEY, trust_env=False, timeout=20
    )
    return response.is_success


def test_with_api_keys_only_the_gateway_reaches_triton(
    tmp_path: Path, toy_flags: tuple[str, ...], leftovers: Leftovers
) -> None:
    with stack.running(tmp_path, *toy_flags, environment={"API_KEYS": "sk-1"}) as served:
        assert answers(served)
        for address in (served.triton_http.removeprefix("http://"), served.triton_grpc):
            host, port = address.rsplit(":", 1)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)), timeout=5)
        assert httpx.get(f"{served.metrics}/metrics", trust_env=False).is_success
        (folder,) = Path(tempfile.gettempdir()).glob(f"gemma-{served.process.pid}-*")
        assert folder.stat().st_mode & 0o077 == 0, "nobody else gets to the sockets"
        environment = tritonserver(served).environ()
        assert "API_KEYS" not in environment

        tritonserver(served).kill()
        until(served, "triton is up again", limit_s=40)
        served.wait(lambda: served.is_ready() and answers(served), 20)
        assert served.stop() == 0
    assert leftovers(served.process.pid) == []
