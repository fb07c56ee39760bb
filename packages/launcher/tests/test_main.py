"""The command line: what it refuses, in one sentence, before anything starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gemma_launcher import doctor, preflight
from gemma_launcher.__main__ import main
from gemma_launcher.doctor import Finding
from gemma_launcher.errors import CannotStart
from gemma_launcher.places import NO_PLAYGROUND
from gemma_launcher.settings import read

NAMES = ("--port", "--playground-port", *(f"--triton-{kind}-port" for kind in ("http", "grpc", "metrics")))
PORTS = tuple(part for name in NAMES for part in (name, "0"))


def launcher(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gemma_launcher", *arguments]
    env = {**os.environ, **more}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def refusal(*arguments: str, **more: str) -> str:
    """The one sentence on standard error, and nothing else anywhere."""
    done = launcher("serve", *PORTS, *arguments, **more)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == "gemma-triton 0.1.0\n"


def test_an_unreadable_checkpoint(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in refusal("--model", str(checkpoint_folder))


def test_a_wrong_model_name() -> None:
    assert "MODEL_NAME=gemma is neither a folder nor a hub id" in refusal(MODEL_NAME="gemma")


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    text = refusal("--model", "acme/toy", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert "the hub cannot be reached" in text


def test_a_wrong_setting() -> None:
    assert "TRITON_LOG_LEVEL=9 is not valid" in refusal(TRITON_LOG_LEVEL="9")


@pytest.mark.parametrize("url", ["http://localhost:8000", "localhost", "localhost:grpc", "a:8001,b", ":1 2"])
def test_what_is_no_address_of_a_triton(url: str) -> None:
    with pytest.raises(CannotStart, match="is not HOST:PORT of a gRPC port"):
        preflight.check_target(read({"triton_grpc_url": url}))


@pytest.mark.parametrize(
    "url", ["", "localhost:8001", "a:8001, b:8001", "[::1]:8001", "dns:///triton:8001", "unix:/run/triton"]
)
def test_addresses_of_a_triton(url: str) -> None:
    preflight.check_target(read({"triton_grpc_url": url}))


def test_what_the_system_refuses_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device", "/full/file")

    monkeypatch.setattr("gemma_launcher.__main__.make_parser", full)
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == "error: /full/file: No space left on device\n"


def test_ctrl_c_while_the_command_line_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gemma_launcher.__main__.make_parser", interrupted)
    assert main(["serve"]) == 0


def test_no_model_repository(tmp_path: Path) -> None:
    assert "is no model repository" in refusal("--model-repository", str(tmp_path))


def test_the_doctor_is_content_with_this_machine(checkpoint_folder: Path) -> None:
    done = launcher("doctor", *PORTS, "--model", str(checkpoint_folder))
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert "ok    tritonserver   2.51.0 runs" in lines
    assert lines[-1] == "ready to serve"
    assert {line.split()[0] for line in lines if line} <= {"ok", "warn", "ready"}


def test_the_doctor_says_what_to_do(tmp_path: Path) -> None:
    done = launcher("doctor", *PORTS, "--model", str(tmp_path), MODEL_NAME="", API_HOST="192.0.2.1")
    assert done.returncode == 1
    assert (
        "fail  port           192.0.2.1:0 for the API: cannot assign requested address; choose" in done.stdout
    )
    assert "config.json is missing" in done.stdout
    assert done.stdout.endswith("2 to put right before serving\n")


def test_the_doctor_needs_less_for_a_triton_elsewhere() -> None:
    ports = {"api_port": 0, "playground_port": 0}
    findings = list(doctor.examine(read({"triton_grpc_url": "triton:8001", **ports})))
    assert not {"wheel", "libpython", "model", "shared memory"} & {finding.subject for finding in findings}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", "its import is killed by SIGSEGV; install the packages anew"),
        ("raise ImportError('no such library')", "cannot be imported (ImportError: no such library)"),
    ],
)
def test_the_doctor_survives_a_torch_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor._torch()
    assert finding.verdict == "fail"
    assert words in finding.text


def test_the_doctor_looks_at_the_playground(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read({"playground_host": "192.0.2.1"})
    (port,) = [each for each in doctor._ports(settings) if "for the playground" in each.text]
    assert port.verdict == "fail"
    assert port.text.endswith("--playground-port or PLAYGROUND_PORT, or leave it out with --no-playground")
    for module in (doctor, preflight):
        monkeypatch.setattr(module, "has_playground", lambda: False)
    settings = read({"triton_grpc_url": "triton:8001", "api_port": 0})
    (missing,) = [each for each in doctor.examine(settings) if "playground" in each.text]
    assert missing == Finding("warn", "package", NO_PLAYGROUND)


def warning(text: str) -> Finding:
    return Finding("warn", "gpu", text)


SMI = """#!/bin/sh
echo "{row}"
exit {code}
"""


@pytest.mark.parametrize(
    ("row", "code", "expected"),
    [
        ("NVIDIA H100, 81559, 580.65.06", 0, Finding("ok", "gpu", "NVIDIA H100, 85.5 GB, driver 580.65.06")),
        ("Orin, [N/A], 580.00", 0, Finding("ok", "gpu", "Orin, driver 580.00")),
        (
            "Tesla T4, 15360, 470.1",
            0,
            warning("Tesla T4, 16.1 GB, driver 470.1; torch's CUDA 13 needs driver 580: update it"),
        ),
        (
            "No devices were found",
            6,
            warning("nvidia-smi sees no GPU (No devices were found); the model will run on the CPU"),
        ),
    ],
)
def test_the_doctor_reads_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, code: int, expected: Finding
) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI.format(row=row, code=code))
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(doctor, "_torch_cuda", lambda: "13")
    assert list(doctor._gpu()) == [expected]
