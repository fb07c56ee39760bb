"""The command line: help, completion, suggestions, warnings, and what it does without a reader."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gemma_launcher.__main__ import main
from gemma_launcher.cli import COMMANDS, build_parser
from gemma_launcher.platforms import no_posix, no_triton
from gemma_launcher.settings import load_settings
from gemma_launcher.tools import doctor

E4B = "google/gemma-3n-E4B-it"
PLAN = ("plan", "--memory", "24GiB", "--model", E4B)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Standard error of a command line that is wrong."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


@pytest.mark.parametrize(
    ("arguments", "usage", "words"),
    [
        (("serve", "--prot", "8080"), "gemma-triton serve", "there is no flag --prot; did you mean --port?"),
        (("serve", "--prot=8080"), "gemma-triton serve", "there is no flag --prot; did you mean --port?"),
        (("plan", "--memroy", "8GiB"), "gemma-triton plan", "--memroy; did you mean --memory?"),
        (("plan", "--memory"), "gemma-triton plan", "argument --memory: expected one argument"),
        (("plan", "--memory", "8GiB", "-x"), "gemma-triton plan", "there is no flag -x"),
        (("bench", "--clients", "-1"), "gemma-triton bench", "'-1' is not a number"),
        (("serve", "now"), "gemma-triton serve", "unexpected argument 'now'"),
        (("chat", "--ünicode"), "gemma-triton chat", "there is no flag --ünicode"),
        (("srve",), "gemma-triton [-h]", "there is no command 'srve'; did you mean serve?"),
        (("--colour", "serve"), "gemma-triton [-h]", "there is no flag --colour"),
        (("",), "gemma-triton [-h]", "there is no command ''"),
        (("help", "paln"), "gemma-triton help", "there is no command 'paln'; did you mean plan?"),
        (("completion", "tcsh"), "gemma-triton completion", "invalid choice: 'tcsh'"),
    ],
)
def test_a_wrong_command_line_shows_the_usage_and_a_suggestion(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], usage: str, words: str
) -> None:
    said = refused(capsys, *arguments)
    assert said.startswith(f"usage: {usage}")
    assert words in said.splitlines()[-1]


@pytest.mark.parametrize("flag", ["--temp", "--temperature"])
def test_flags_may_be_shortened_and_texts_may_look_like_flags(flag: str) -> None:
    options = build_parser().parse_args(["chat", flag, "-1", "--system", "-- be brief", "--", "--prompt"])
    assert (options.temperature, options.system, options.prompt) == (-1.0, "-- be brief", "--prompt")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    said = capsys.readouterr().out
    assert all(f"    {name}" in said for name in COMMANDS)
    assert main(["help", "plan"]) == 0
    assert capsys.readouterr().out.startswith("usage: gemma-triton plan")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(capsys: pytest.CaptureFixture[str], tmp_path: Path, shell: str) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "playground" in script
    assert "text-only" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_completion_in_bash(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "checkpoint").mkdir()
    assert completed(tmp_path, "gemma-triton", "pl") == {"plan", "playground"}
    assert completed(tmp_path, "gemma-triton", "plan", "--text") == {"--text-only"}
    assert completed(tmp_path, "gemma-triton", "plan", "--device", "") == {"cuda", "cpu"}
    assert completed(tmp_path, "gemma-triton", "help", "do") == {"doctor"}
    assert "checkpoint" in completed(tmp_path, "gemma-triton", "quantize", "check")


def completed(folder: Path, *words: str) -> set[str]:
    """What bash offers for the last word, in a folder with the script."""
    code = """
        source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_gemma_triton
        printf "%s\\n" "${COMPREPLY[@]}"
    """
    command = ["bash", "-c", code, "bash", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return set(done.stdout.split())


def test_an_unknown_variable_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMMA_MAX_SEQS", "2")
    assert main([*PLAN, "--json"]) == 0
    said = capsys.readouterr()
    sentence = "GEMMA_MAX_SEQS is not a setting and has no effect; did you mean GEMMA_MAX_NUM_SEQS?"
    assert said.err == f"warning: {sentence}\n"
    json.loads(said.out)
    (found,) = doctor._environment()
    assert (found.status, found.text) == ("warn", sentence)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_the_reader_of_the_output_may_end_early(unbuffered: str) -> None:
    command = (
        f"(sleep 0.2; {sys.executable} -m gemma_launcher {' '.join(PLAN)}) | true; echo ${{PIPESTATUS[0]}}"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_doctor_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    checks = [doctor.CheckResult("ok", "python", "3.11"), doctor.CheckResult("fail", "port", "in use")]
    monkeypatch.setattr(doctor, "run_checks", lambda _: iter(checks))
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is False
    assert report["checks"][1] == {"status": "fail", "subject": "port", "text": "in use"}
    monkeypatch.setattr(doctor, "run_checks", lambda _: iter(checks[:1]))
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True


@pytest.mark.parametrize(
    ("system", "machine", "words"),
    [
        ("Darwin", "arm64", "there is no tritonserver for macOS on arm64"),
        ("Windows", "AMD64", "there is no tritonserver for Windows on AMD64"),
        ("Linux", "riscv64", "there is no tritonserver for Linux on riscv64"),
        ("Linux", "x86_64", "is not installed; run `poetry install`"),
        ("Linux", "aarch64", "is not installed; run `poetry install`"),
    ],
)
def test_a_system_without_a_triton_wheel(system: str, machine: str, words: str) -> None:
    sentence = no_triton(system, machine)
    assert words in sentence
    assert "TRITON_GRPC_URL" in sentence
    assert ("docker compose up" in sentence) == words.startswith("there is no")


def test_doctor_without_a_triton_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma_launcher.processes.triton_server.find_spec", lambda _: None)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    (wheel,) = [each for each in doctor._triton() if each.subject == "wheel"]
    assert wheel.status == "fail"
    assert "macOS on arm64" in wheel.text


def test_what_does_not_run_on_windows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert no_posix("serve", "linux") == ""
    monkeypatch.setattr("gemma_launcher.__main__.no_posix", lambda name: no_posix(name, "win32"))
    assert main(["serve"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: `gemma-triton serve` does not run on Windows; run the containers")
    assert said.count("\n") == 1
    assert main(PLAN) == 0


def test_the_settings_of_a_command_are_those_of_its_flags() -> None:
    options = build_parser().parse_args(["doctor", "--port", "9000"])
    assert load_settings({"api_port": options.api_port}).api_port == 9000
