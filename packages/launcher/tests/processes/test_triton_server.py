import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gemma_launcher.checkpoints.resolver import ResolvedCheckpoint
from gemma_launcher.errors import CommandError
from gemma_launcher.processes import services, triton_server
from gemma_launcher.processes.triton_address import triton_address
from gemma_launcher.processes.triton_server import STUB_NAME, TritonWheel
from gemma_launcher.settings import load_settings


@pytest.fixture
def wheel() -> TritonWheel:
    return triton_server.find_wheel()


def test_the_wheel_is_complete(wheel: TritonWheel) -> None:
    assert wheel.server.is_file()
    assert (wheel.backend / "libtriton_python.so").is_file()
    assert wheel.stub.is_file()
    assert wheel.libraries.is_dir()


def test_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_server, "find_spec", lambda _: None)
    with pytest.raises(CommandError, match=r"is not installed; .* --triton-url"):
        triton_server.find_wheel()


def test_no_stub_for_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_server, "_PYTHON", "3.99")
    with pytest.raises(CommandError, match=r"no stub for Python 3\.99, only for .*3\.11"):
        triton_server.find_wheel()


def test_the_folder_cannot_be_written(wheel: TritonWheel, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(CommandError, match="run cannot be written: Not a directory; set TMPDIR to another"):
        triton_server.prepare_backend_folder(wheel, tmp_path / "run")


def test_stub_and_server_run(wheel: TritonWheel, tmp_path: Path) -> None:
    triton_server.prepare_backend_folder(wheel, tmp_path)
    assert os.access(tmp_path / "backends" / "python" / STUB_NAME, os.X_OK)
    assert (
        triton_server.check_server(
            wheel, tmp_path, triton_server.server_environment(os.environ, wheel, tmp_path)
        )
        == "2.51.0"
    )


def test_a_missing_library_is_reported_with_its_package(wheel: TritonWheel, tmp_path: Path) -> None:
    """The stub is made to look for a libpython that no machine has."""
    wanted = f"libpython{triton_server._PYTHON}.so.1.0".encode()
    patched = tmp_path / "stub"
    patched.write_bytes(wheel.stub.read_bytes().replace(wanted, wanted.replace(b"libpython", b"libpythoN")))
    broken = replace(wheel, stub=patched)
    triton_server.prepare_backend_folder(broken, tmp_path)
    with pytest.raises(CommandError) as caught:
        triton_server.check_server(
            broken, tmp_path, triton_server.server_environment(os.environ, broken, tmp_path)
        )
    assert "libpythoN" in str(caught.value)
    said = "stub: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file"
    sentence = triton_server._cannot_load(patched, said)
    assert sentence.startswith("libpython3.11.so.1.0 is missing")
    assert f"`sudo apt-get install libpython{triton_server._PYTHON}`" in sentence


def test_an_outdated_system_is_reported(wheel: TritonWheel) -> None:
    reason = "/lib/libc.so.6: version `GLIBC_2.35' not found (required by tritonserver)"
    assert triton_server._cannot_load(wheel.server, reason).endswith(f"does not run on this system: {reason}")


def test_a_program_without_permission(wheel: TritonWheel, tmp_path: Path) -> None:
    triton_server.prepare_backend_folder(wheel, tmp_path)
    server = tmp_path / "tritonserver"
    server.touch()
    env = triton_server.server_environment(os.environ, wheel, tmp_path)
    with pytest.raises(CommandError, match=r"tritonserver cannot be run: permission denied; .*TMPDIR"):
        triton_server.check_server(replace(wheel, server=server), tmp_path, env)


def test_bash_is_needed(wheel: TritonWheel, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="bash, which is not installed"):
        triton_server.check_server(wheel, tmp_path, {"PATH": str(tmp_path)})


def test_numpy_2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    triton_server.check_numpy()
    monkeypatch.setattr(triton_server, "version", lambda _: "2.1.0")
    with pytest.raises(CommandError, match=r"numpy 2\.1\.0 is installed"):
        triton_server.check_numpy()


def test_the_command_listens_on_loopback_only(wheel: TritonWheel, tmp_path: Path) -> None:
    ports = {"http": 1, "grpc": 2, "metrics": 3}
    settings = load_settings({f"gemma_triton_{kind}_port": port for kind, port in ports.items()})
    address = triton_address(settings, tmp_path)
    command = triton_server.server_command(
        settings, address, wheel, tmp_path / "repository", tmp_path, "run-1"
    )
    for kind, port in ports.items():
        assert f"--{kind}-address=127.0.0.1" in command
        assert f"--{kind}-port={port}" in command
    assert "--backend-config=python,shm-region-prefix-name=run-1-" in command
    assert f"--backend-directory={tmp_path / 'backends'}" in command


def test_the_environment_of_triton(wheel: TritonWheel, tmp_path: Path) -> None:
    secrets = {"API_KEYS": "k", "API_KEYS_FILE": "/k", "OPENAI_API_KEY": "o"}
    base = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/mine", "HF_TOKEN": "t", **secrets}
    env = services.triton_environment(
        base, wheel, tmp_path, load_settings({}), ResolvedCheckpoint("owner/name", tmp_path)
    )
    assert env["LD_LIBRARY_PATH"].split(os.pathsep) == [str(tmp_path / "lib"), str(wheel.libraries), "/mine"]
    assert Path(env["PATH"].split(os.pathsep)[0], "python3").exists()
    assert (env["MODEL_NAME"], env["GEMMA_CHECKPOINT"], env["HF_TOKEN"]) == ("owner/name", str(tmp_path), "t")
    assert not secrets.keys() & env.keys()


@pytest.mark.parametrize(
    ("wanted", "base", "expected"),
    [
        ("all", {}, {}),
        ("none", {}, {"CUDA_VISIBLE_DEVICES": ""}),
        ("1,2", {}, {"CUDA_VISIBLE_DEVICES": "1,2"}),
        ("1", {"CUDA_VISIBLE_DEVICES": "0"}, {}),
        ("3", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {}),
    ],
)
def test_visible_devices(
    monkeypatch: pytest.MonkeyPatch, wanted: str, base: dict[str, str], expected: dict[str, str]
) -> None:
    monkeypatch.setattr(triton_server, "CONTAINER_MARKERS", ())
    settings = load_settings({"nvidia_visible_devices": wanted})
    assert triton_server.visible_devices(settings, base) == expected


def test_the_gateways_environment_has_addresses_and_no_token() -> None:
    secrets = {"HF_TOKEN": "t", "OPENAI_API_KEY": "o"}
    base = {"PATH": "/usr/bin", "API_KEYS": "k", "no_proxy": "example.org", **secrets}
    settings = load_settings({"gemma_triton_grpc_port": 5, "api_port": 6})
    env = services.gateway_environment(base, settings, triton_address(settings, Path("/run")))
    assert (env["TRITON_GRPC_URL"], env["API_PORT"]) == ("127.0.0.1:5", "6")
    assert env["no_grpc_proxy"] == "127.0.0.1,localhost,example.org"
    assert env["API_KEYS"] == "k"
    assert not secrets.keys() & env.keys()


def test_the_gateways_environment_with_a_remote_triton() -> None:
    env = services.gateway_environment({}, load_settings({"triton_grpc_url": "a:1,b:2"}), None)
    assert env["TRITON_GRPC_URL"] == "a:1,b:2"
    assert "no_grpc_proxy" not in env


def test_cleanup_does_not_need_write_access_to_the_wheel(wheel: TritonWheel, tmp_path: Path) -> None:
    triton_server.prepare_backend_folder(wheel, tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    assert (wheel.backend / "libtriton_python.so").is_file()
