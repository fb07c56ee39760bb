"""Where the embedded Triton listens, and who can reach it."""

from pathlib import Path
from typing import Any

import pytest

from gemma_launcher.errors import CommandError
from gemma_launcher.processes import preflight
from gemma_launcher.processes.startup_banner import banner
from gemma_launcher.processes.triton_address import triton_address
from gemma_launcher.settings import load_settings

FOLDER = Path("/tmp/gemma-1-abc")


@pytest.mark.parametrize(
    ("given", "uses_sockets"),
    [
        ({}, False),
        ({"api_keys": "sk-1"}, True),
        ({"api_keys_file": "/run/keys"}, True),
        ({"api_keys": "sk-1", "gemma_triton_model_control": True}, False),
        ({"api_keys": "sk-1", "gemma_triton_listen": "tcp"}, False),
        ({"gemma_triton_listen": "unix"}, True),
    ],
)
def test_unix_sockets_are_used_with_api_keys(given: dict[str, Any], uses_sockets: bool) -> None:
    settings = load_settings(given)
    address = triton_address(settings, FOLDER)
    assert (address.sockets != ()) == uses_sockets
    ports = {listener.port for listener in preflight.required_ports(settings)}
    assert ({8000, 8001} <= ports) == (not uses_sockets)
    assert ("Unix sockets" in banner(settings, {}, 1, "")) == uses_sockets


def test_the_sockets_are_in_the_runs_folder() -> None:
    address = triton_address(
        load_settings({"gemma_triton_listen": "unix", "gemma_triton_grpc_port": 7}), FOLDER
    )
    assert address.http_socket == f"{FOLDER}/http.sock"
    assert address.grpc == f"unix:{FOLDER}/grpc.sock:7"  # tritonserver appends the port
    assert address.flags["grpc-address"] == f"unix:{FOLDER}/grpc.sock"
    assert {path.parent for path in address.sockets} == {FOLDER}


def test_a_path_too_long_for_a_socket() -> None:
    folder = Path("/tmp") / ("x" * 100)
    with pytest.raises(CommandError, match=r"longer than the 107 bytes .* set TMPDIR to a shorter one"):
        triton_address(load_settings({"gemma_triton_listen": "unix"}), folder)


def test_model_control_needs_tcp() -> None:
    settings = load_settings({"gemma_triton_listen": "unix", "gemma_triton_model_control": True})
    with pytest.raises(CommandError, match="GEMMA_TRITON_LISTEN=tcp"):
        preflight.check_model_control(settings)
