"""Failed starts with the real tritonserver and the real gateway are explained."""

from pathlib import Path

import httpx
from packages.launcher.tests import stack
from packages.launcher.tests.stack import Leftovers, until


def test_the_launcher_gives_up_on_a_model_that_cannot_be_loaded(
    tmp_path: Path, toy_flags: tuple[str, ...], leftovers: Leftovers
) -> None:
    with stack.started(tmp_path, *toy_flags, environment={"TOY_TROUBLE": "the weights are sour"}) as served:
        assert served.process.wait(60) == 1
    assert served.output.count("ValueError: the weights are sour; restarting it") == 2
    assert "error: triton ended with exit code 1 while starting: " in served.output
    assert served.output.rstrip().endswith("ValueError: the weights are sour; gave up after 3 attempts")
    assert "Traceback" not in served.output
    assert leftovers(served.process.pid) == []


def test_a_wrong_setting_of_the_model_is_reported_at_once(
    tmp_path: Path, toy_flags: tuple[str, ...], leftovers: Leftovers
) -> None:
    """With our own model, which refuses before it loads anything."""
    environment = {"GEMMA_ENGINE": "reference", "GEMMA_TOWERS": "none", "GEMMA_REPLICAS": "2"}
    with stack.started(tmp_path, *toy_flags[:2], environment=environment) as served:
        assert served.process.wait(60) == 1
    assert served.output.rstrip().endswith(
        "error: the model cannot be loaded: the reference engine always loads the towers; "
        "use GEMMA_ENGINE=native with GEMMA_TOWERS=none"
    )
    assert "restarting" not in served.output
    assert served.output.count("GEMMA_REPLICAS is not a setting and has no effect") == 1
    assert leftovers(served.process.pid) == []


def test_the_signal_of_a_crashed_stub_is_reported(
    tmp_path: Path, toy_flags: tuple[str, ...], leftovers: Leftovers
) -> None:
    with stack.started(tmp_path, *toy_flags, environment={"TOY_CRASH": "yes"}) as served:
        assert served.process.wait(60) == 1
    assert "its Python stub was killed by SIGSEGV" in served.output.splitlines()[-1]
    assert leftovers(served.process.pid) == []


def test_an_unreachable_remote_triton_is_reported_and_not_fatal(tmp_path: Path) -> None:
    with stack.started(tmp_path, "--triton-url", "127.0.0.1:9") as served:
        until(served, "waiting for the gateway to reach the model at 127.0.0.1:9", limit_s=30)
        assert httpx.get(f"{served.api}/health/live", trust_env=False).is_success
        assert httpx.get(f"{served.api}/health", trust_env=False).status_code == 503
        assert served.stop() == 0
