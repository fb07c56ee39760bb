"""The command line: invalid input is reported as one sentence before anything starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gemma_launcher.__main__ import main
from gemma_launcher.errors import CommandError
from gemma_launcher.paths import PLAYGROUND_NOT_INSTALLED
from gemma_launcher.processes import preflight
from gemma_launcher.settings import load_settings
from gemma_launcher.tools import doctor
from gemma_launcher.tools.doctor import CheckResult

NAMES = ("--port", "--playground-port", *(f"--triton-{kind}-port" for kind in ("http", "grpc", "metrics")))
PORTS = tuple(part for name in NAMES for part in (name, "0"))


def launcher(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gemma_launcher", *arguments]
    env = {**os.environ, **more}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def error_of(*arguments: str, **more: str) -> str:
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
    assert "tokenizer.json is missing" in error_of("--model", str(checkpoint_folder))


def test_a_wrong_model_name() -> None:
    assert "MODEL_NAME=gemma is neither a folder nor a hub id" in error_of(MODEL_NAME="gemma")


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    text = error_of("--model", "acme/toy", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert "the hub cannot be reached" in text


def test_a_wrong_setting() -> None:
    assert "TRITON_LOG_LEVEL=9 is not valid" in error_of(TRITON_LOG_LEVEL="9")


@pytest.mark.parametrize("url", ["http://localhost:8000", "localhost", "localhost:grpc", "a:8001,b", ":1 2"])
def test_invalid_triton_addresses(url: str) -> None:
    with pytest.raises(CommandError, match="is not HOST:PORT of a gRPC port"):
        preflight.check_triton_url(load_settings({"triton_grpc_url": url}))


@pytest.mark.parametrize(
    "url", ["", "localhost:8001", "a:8001, b:8001", "[::1]:8001", "dns:///triton:8001", "unix:/run/triton"]
)
def test_valid_triton_addresses(url: str) -> None:
    preflight.check_triton_url(load_settings({"triton_grpc_url": url}))


def test_an_os_error_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device", "/full/file")

    monkeypatch.setattr("gemma_launcher.__main__.build_parser", full)
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == "error: /full/file: No space left on device\n"


def test_ctrl_c_while_the_command_line_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gemma_launcher.__main__.build_parser", interrupted)
    assert main(["serve"]) == 0


def test_no_model_repository(tmp_path: Path) -> None:
    assert "is not a model repository" in error_of("--model-repository", str(tmp_path))


def test_doctor_on_this_machine(checkpoint_folder: Path) -> None:
    done = launcher("doctor", *PORTS, "--model", str(checkpoint_folder))
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert "ok    tritonserver   2.51.0 runs" in lines
    assert lines[-1] == "ready to serve"
    assert {line.split()[0] for line in lines if line} <= {"ok", "warn", "ready"}


def test_doctor_reports_failures(tmp_path: Path) -> None:
    done = launcher("doctor", *PORTS, "--model", str(tmp_path), MODEL_NAME="", API_HOST="192.0.2.1")
    assert done.returncode == 1
    assert (
        "fail  port           192.0.2.1:0 for the API: cannot assign requested address; choose" in done.stdout
    )
    assert "config.json is missing" in done.stdout
    assert done.stdout.endswith("2 problem(s) to fix before serving\n")


def test_doctor_checks_less_with_a_remote_triton() -> None:
    ports = {"api_port": 0, "playground_port": 0}
    findings = list(doctor.run_checks(load_settings({"triton_grpc_url": "triton:8001", **ports})))
    assert not {"wheel", "libpython", "model", "shared memory"} & {finding.subject for finding in findings}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import os; os.kill(os.getpid(), 11)",
            "importing it was killed by SIGSEGV; install the packages again",
        ),
        ("raise ImportError('no such library')", "cannot be imported (ImportError: no such library)"),
    ],
)
def test_doctor_survives_a_crash_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor._torch()
    assert finding.status == "fail"
    assert words in finding.text


def test_doctor_checks_the_playground(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({"playground_host": "192.0.2.1"})
    (port,) = [each for each in doctor._ports(settings) if "for the playground" in each.text]
    assert port.status == "fail"
    assert port.text.endswith("--playground-port or PLAYGROUND_PORT, or disable it with --no-playground")
    for module in (doctor, preflight):
        monkeypatch.setattr(module, "is_playground_installed", lambda: False)
    settings = load_settings({"triton_grpc_url": "triton:8001", "api_port": 0})
    (missing,) = [each for each in doctor.run_checks(settings) if "playground" in each.text]
    assert missing == CheckResult("warn", "package", PLAYGROUND_NOT_INSTALLED)


def warning(text: str) -> CheckResult:
    return CheckResult("warn", "gpu", text)


SMI = """#!/bin/sh
echo "{row}"
exit {code}
"""


@pytest.mark.parametrize(
    ("row", "code", "expected"),
    [
        (
            "NVIDIA H100, 81559, 580.65.06",
            0,
            CheckResult("ok", "gpu", "NVIDIA H100, 85.5 GB, driver 580.65.06"),
        ),
        ("Orin, [N/A], 580.00", 0, CheckResult("ok", "gpu", "Orin, driver 580.00")),
        (
            "Tesla T4, 15360, 470.1",
            0,
            warning("Tesla T4, 16.1 GB, driver 470.1; torch's CUDA 13 needs driver 580: update it"),
        ),
        (
            "No devices were found",
            6,
            warning("nvidia-smi finds no GPU (No devices were found); the model will run on the CPU"),
        ),
    ],
)
def test_doctor_parses_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, code: int, expected: CheckResult
) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI.format(row=row, code=code))
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(doctor, "_torch_cuda", lambda: "13")
    assert list(doctor._gpu()) == [expected]
