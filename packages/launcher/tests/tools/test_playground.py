"""The playground as the launcher sees it: an environment, a port, a process."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from gemma_launcher.__main__ import main
from gemma_launcher.addresses import LOOPBACK, playground_url
from gemma_launcher.processes import preflight, services
from gemma_launcher.processes.ports import find_free_port
from gemma_launcher.processes.startup_banner import banner
from gemma_launcher.settings import LauncherSettings, load_settings
from gemma_launcher.tools import playground

WaitFor = Callable[..., None]
NOBODY = "http://127.0.0.1:9/v1"


def environment(settings: LauncherSettings, base: dict[str, str]) -> dict[str, str]:
    return services.playground_environment(services.with_api_key(base, settings), settings, NOBODY)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# one a line\n sk-two \n\n")
    return path


def test_without_keys_no_key_goes_anywhere() -> None:
    """The user's own, for a server elsewhere, least of all."""
    base = {"OPENAI_API_KEY": "sk-elsewhere", "HF_TOKEN": "t", "API_KEYS_FILE": "/keys", "LANG": "C"}
    given = environment(load_settings({}), base)
    assert not {"OPENAI_API_KEY", "HF_TOKEN", "API_KEYS", "API_KEYS_FILE"} & set(given)
    assert given["LANG"] == "C"
    assert services.api_key_warning(services.with_api_key(base, load_settings({})), load_settings({})) == ""


def test_the_only_key_is_handed_over(keys_file: Path) -> None:
    for flags in ({"api_keys": " sk-two ,"}, {"api_keys_file": keys_file}):
        assert environment(load_settings(flags), {})["OPENAI_API_KEY"] == "sk-two"


def test_of_several_keys_the_operator_chooses_one(keys_file: Path) -> None:
    both = {"api_keys": "sk-one", "api_keys_file": keys_file}
    for chosen, expected in (("sk-one", "sk-one"), ("sk-two", "sk-two"), ("sk-elsewhere", None), ("", None)):
        settings = load_settings({**both, "openai_api_key": chosen})
        base = services.with_api_key({"OPENAI_API_KEY": chosen}, settings)
        assert base.get("OPENAI_API_KEY") == expected
        assert ("several keys" in services.api_key_warning(base, settings)) == (expected is None)


def test_an_unreadable_keys_file_is_reported_by_the_gateway(tmp_path: Path) -> None:
    assert "OPENAI_API_KEY" not in environment(load_settings({"api_keys_file": tmp_path / "none"}), {})


def test_warning_about_an_exposed_key() -> None:
    settings = load_settings({"api_keys": "sk-one", "playground_host": "0.0.0.0"})
    worry = services.api_key_warning(services.with_api_key({}, settings), settings)
    assert worry == "anyone who reaches the playground at 0.0.0.0 uses the API's key"


def test_no_proxy_for_this_machine() -> None:
    given = environment(
        load_settings({"api_host": "192.0.2.7"}), {"NO_PROXY": "example.org", "http_proxy": "http://p"}
    )
    assert given["no_proxy"] == "127.0.0.1,localhost,192.0.2.7,example.org"


def test_keys_are_not_printed() -> None:
    settings = load_settings({"api_keys": "sk-one", "openai_api_key": "sk-one"})
    assert "sk-one" not in repr(settings)


def test_serving_continues_if_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    assert preflight.without_missing_playground(load_settings({}), said.append).gemma_playground
    monkeypatch.setattr(preflight, "is_playground_installed", lambda: False)
    left_out = preflight.without_missing_playground(load_settings({"gemma_playground": False}), said.append)
    assert said == []
    settings = preflight.without_missing_playground(load_settings({}), said.append)
    assert said == ["the playground is not installed (`poetry install` installs it); serving without it"]
    for each in (left_out, settings):
        assert "the playground" not in {binding.what for binding in preflight.required_ports(each)}


def test_the_banner() -> None:
    settings = load_settings({"playground_host": "0.0.0.0", "playground_port": 1234})
    assert playground_url(settings) == "http://127.0.0.1:1234"
    rows = [line for line in banner(settings, {}, 1.0, "a note\nof two lines").splitlines() if line.strip()]
    assert rows[1] == "  playground  http://127.0.0.1:1234   open it in a browser"
    assert rows[2].split() == ["API", "http://127.0.0.1:8080/v1"]
    assert "  a note" in rows
    assert "in a moment" in banner(settings, {}, 1.0, "", playground_is_ready=False)
    assert "playground" not in banner(load_settings({"gemma_playground": False}), {}, 1.0, "")


@contextmanager
def command(*arguments: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """``gemma-triton playground`` as a process; killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "gemma_launcher", "playground", *arguments],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_command_is_the_playground(toy_playground: Path, wait_for: WaitFor) -> None:
    port = find_free_port(LOOPBACK)
    variables = {"PYTHONPATH": str(toy_playground), "OPENAI_API_KEY": "sk-secret", "HF_TOKEN": "t"}
    flags = ("--base-url", "http://127.0.0.1:9", "--port", str(port))
    with command(*flags, **variables) as process:
        url = f"http://{LOOPBACK}:{port}"
        wait_for(lambda: answers(url), 60)
        given = httpx.get(url, trust_env=False).json()["environment"]
        assert (given["OPENAI_BASE_URL"], given["OPENAI_API_KEY"]) == (NOBODY, "sk-secret")
        assert "HF_TOKEN" not in given
        assert "sk-secret" not in " ".join(psutil.Process(process.pid).cmdline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=30).is_success
    except httpx.HTTPError:
        return False


def test_the_base_url_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without one it is the gateway of this machine."""
    started: list[str] = []
    execve = lambda program, words, given: started.append(given["OPENAI_BASE_URL"])  # noqa: E731
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere:1/api/v1/")
    main(["playground", "--port", "0"])
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    main(["playground", "--port", "0"])
    assert started == ["http://elsewhere:1/api/v1", "http://127.0.0.1:8080/v1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--base-url", "nowhere"), "nowhere is not a valid base URL"),
        (
            ("--host", "192.0.2.1", "--port", "1234"),
            "cannot listen on 192.0.2.1:1234: cannot assign requested",
        ),
    ],
)
def test_invalid_arguments(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["playground", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_the_command_without_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(playground, "is_playground_installed", lambda: False)
    assert main(["playground"]) == 1
    assert (
        capsys.readouterr().err == "error: the playground is not installed (`poetry install` installs it)\n"
    )


@pytest.mark.timeout(300)
def test_the_real_one(wait_for: WaitFor, tmp_path: Path) -> None:
    """Gradio itself, with nobody at the other end: it starts all the same, ends, and leaves nothing."""
    port = find_free_port(LOOPBACK)
    with command("--port", str(port), "--base-url", NOBODY, TMPDIR=str(tmp_path)) as process:
        wait_for(lambda: process.poll() is not None or answers(f"http://{LOOPBACK}:{port}/"), 180)
        assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, process.communicate()[0]
    assert not list(tmp_path.iterdir())


def test_a_signal_while_it_starts(wait_for: WaitFor, tmp_path: Path) -> None:
    """Gradio's import takes seconds; told to end before, it does."""
    with command("--port", "0", "--base-url", NOBODY, TMPDIR=str(tmp_path)) as process:
        wait_for(lambda: list(tmp_path.glob("playground-*")), 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert not list(tmp_path.iterdir())
