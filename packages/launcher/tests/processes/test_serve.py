"""``gemma-triton serve`` with the real tritonserver, the real gateway and a toy model."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from packages.launcher.tests import stack
from packages.launcher.tests.stack import (
    Leftovers,
    RunningLauncher,
    gateway,
    playground,
    tritonserver,
    until,
    within,
)

from gemma_launcher.__main__ import main
from gemma_launcher.errors import CommandError
from gemma_launcher.processes.triton_server import STUB_NAME
from gemma_launcher.tools.reload import ModelControlClient

OPERATIONS = Path(__file__).parents[4] / "docs" / "operations.md"
SECRETS = {"API_KEYS": "sk-of-the-api", "HF_TOKEN": "of-the-hub", "OPENAI_API_KEY": "of-another-server"}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    toy_flags: tuple[str, ...],
    toy_playground: Path,
    leftovers: Leftovers,
) -> Iterator[RunningLauncher]:
    """One stack for all tests of this file. At the end Triton hangs, and the stack must stop in time."""
    folder, flags = tmp_path_factory.mktemp("served"), ("--model-control", *toy_flags)
    with stack.running(folder, *flags, environment=SECRETS, playground=toy_playground) as running:
        yield running
        tritonserver(running).suspend()
        with within(10):
            assert running.stop() == 0
    assert leftovers(running.process.pid) == []


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def stub(served: RunningLauncher) -> psutil.Process:
    return next(child for child in tritonserver(served).children() if STUB_NAME in " ".join(child.cmdline()))


def listening(pid: int) -> set[str]:
    """The addresses that a process listens on."""
    found = psutil.Process(pid).net_connections("tcp")
    return {connection.laddr[0] for connection in found if connection.status == psutil.CONN_LISTEN}


@contextmanager
def restarted(served: RunningLauncher, limit_s: float, services: int = 1) -> Iterator[None]:
    """Services fail inside the context; at its end all must be ready again."""
    words = "is up again, after "
    before = served.output.count(words)
    with within(limit_s):
        yield
        until(served, words, limit_s, times=before + services)
        served.wait(served.is_ready, limit_s)


def test_ready(served: RunningLauncher) -> None:
    health = httpx.get(f"{served.api}/health", trust_env=False).json()
    assert health["model"] == "toy-checkpoint"
    assert health["engine"].endswith("/toy-checkpoint")  # the toy tells its GEMMA_CHECKPOINT here
    assert listening(tritonserver(served).pid) <= {"127.0.0.1", "::ffff:127.0.0.1"}

    until(served, "Gemma-Triton is ready", limit_s=10)
    addresses = (served.api, served.triton_http, served.triton_grpc, served.metrics)
    for words in (*addresses, "toy-checkpoint", "cpu"):
        assert words in served.output
    assert "+--" not in served.output, "Triton's tables are noise"
    assert re.search(r"^triton     \| \d\d:\d\d:\d\d loading: gemma3n:1$", served.output, re.MULTILINE)


def test_the_playground_comes_first_in_the_banner(served: RunningLauncher) -> None:
    until(served, "Gemma-Triton is ready", limit_s=10)
    banner = served.output[served.output.index("Gemma-Triton is ready") :].splitlines()
    assert banner[2].startswith(f"  playground  {served.playground}   open it in a browser")
    until(served, f"playground | playground: {served.playground}", limit_s=30)


def test_the_playground_gets_the_base_url_the_key_and_no_other_secret(served: RunningLauncher) -> None:
    served.wait(lambda: is_there(served), 30)
    told = httpx.get(served.playground, trust_env=False).json()
    environment = told["environment"]
    assert told["arguments"] == []
    assert environment["OPENAI_BASE_URL"] == f"{served.api}/v1"
    assert environment["OPENAI_API_KEY"] == SECRETS["API_KEYS"]
    assert not {"API_KEYS", "HF_TOKEN"} & set(environment)
    lines = [" ".join(process.cmdline()) for process in psutil.Process(served.process.pid).children()]
    assert not [secret for secret in SECRETS.values() if secret in served.output + "".join(lines)]


def is_there(served: RunningLauncher) -> bool:
    try:
        return httpx.get(served.playground, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def test_a_dead_playground_is_restarted_and_nothing_else(served: RunningLauncher) -> None:
    served.wait(lambda: is_there(served), 30)
    with restarted(served, limit_s=60):
        playground(served).kill()
        until(served, "playground was killed by SIGKILL; restarting it now", limit_s=10)
        assert served.is_ready()
    assert is_there(served)


def test_a_port_in_use_is_reported_immediately(
    served: RunningLauncher, elsewhere: Path, toy_flags: tuple[str, ...]
) -> None:
    taken = served.triton_grpc.rpartition(":")[2]
    with stack.started(elsewhere, *toy_flags, "--triton-grpc-port", taken) as other:
        assert other.process.wait(10) == 1
    assert f"port {taken} is taken by tritonserver" in other.output
    assert "choose another with --triton-grpc-port or GEMMA_TRITON_GRPC_PORT" in other.output
    assert other.output.count("\n") == 1


def test_a_remote_triton(served: RunningLauncher, elsewhere: Path) -> None:
    with stack.running(elsewhere, "--triton-url", served.triton_grpc) as second:
        assert "triton   |" not in second.output
        assert "playground" not in second.output
        assert httpx.get(f"{second.api}/health", trust_env=False).json()["model"] == "toy-checkpoint"
        assert second.stop() == 0
    assert served.is_ready(), "it is not ours to stop"


def test_triton_is_restarted_when_its_stub_dies(served: RunningLauncher) -> None:
    killed = stub(served)
    with restarted(served, limit_s=30):
        killed.kill()
        until(served, f"lost its Python stub (process {killed.pid} died)", limit_s=3)
    assert stub(served).pid != killed.pid


def test_a_dead_tritonserver_and_gateway_are_restarted(served: RunningLauncher) -> None:
    with restarted(served, limit_s=30, services=2):
        gateway(served).kill()
        tritonserver(served).kill()
        until(served, "triton was killed by SIGKILL; restarting it", limit_s=5)
        until(served, "gateway was killed by SIGKILL; restarting it now", limit_s=5)


def test_a_hanging_gateway_and_playground_are_restarted(served: RunningLauncher) -> None:
    served.wait(lambda: is_there(served), 30)
    hung = gateway(served), playground(served)
    with restarted(served, limit_s=90, services=2):
        for process in hung:
            process.suspend()
        until(served, "gateway hangs: it does not respond to health checks", limit_s=40)
        until(served, "playground hangs: it does not respond to health checks", limit_s=40)
    assert not [process for process in hung if process.is_running()]
    assert is_there(served)


@pytest.mark.long
def test_a_hanging_stub_is_restarted(served: RunningLauncher) -> None:
    with restarted(served, limit_s=60):
        stub(served).suspend()
        until(served, "triton hangs: the model does not respond", limit_s=40)


def test_reload_during_open_responses(served: RunningLauncher, of_toy: tuple[str, ...]) -> None:
    """The API stays ready, and an open response is completed by the old model."""
    old, restarts = stub(served).pid, served.output.count("restarting it")
    with ThreadPoolExecutor() as pool:
        answer, ready = pool.submit(talk, served, 80), pool.submit(never_unready, served, 3.0)
        time.sleep(1.1)  # a second of Unix time, in which Triton's models are told apart
        assert reload(served, *of_toy) == 0
        assert not answer.done(), "it does not wait for open answers"
        assert set(talk(served, 2)) == {str(stubs(served)[-1].pid)}, "new requests reach the new model"
        assert ready.result()
        assert answer.result() == [str(old)] * 80
    time.sleep(1.0)
    assert served.output.count("restarting it") == restarts, "the old stub's end is no trouble"


def test_a_failed_reload_keeps_the_old_model(
    served: RunningLauncher, of_toy: tuple[str, ...], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, model = stubs(served)[-1].pid, Path(of_toy[1]) / "gemma3n" / "1" / "model.py"
    code = model.read_text()
    try:
        model.write_text("this is no Python\n")
        assert reload(served, *of_toy) == 1
    finally:
        model.write_text(code)
    said = capsys.readouterr().err
    assert "SyntaxError: invalid syntax" in said
    assert said.endswith("; the old model continues to serve\n")
    assert reload(served, "--model-repository", str(elsewhere)) == 1
    assert "is not a model repository" in capsys.readouterr().err
    assert set(talk(served, 2)) == {str(old)}


def test_a_manual_reload(served: RunningLauncher, of_toy: tuple[str, ...]) -> None:
    """The commands of docs/operations.md, but for the port and the folder."""
    (block,) = re.findall(r"```bash\n(touch .*?)```", OPERATIONS.read_text(encoding="utf-8"), re.DOTALL)
    old, here = stubs(served)[-1].pid, Path(of_toy[1])
    commands = block.replace("packages/model/src/gemma_model/model_repository", here.name).replace(
        "http://localhost:8000", served.triton_http
    )
    subprocess.run(["bash", "-euc", commands], cwd=here.parent, check=True, capture_output=True)
    assert str(old) not in talk(served, 2)


def test_a_failed_load_without_an_old_model() -> None:
    refusing = httpx.MockTransport(lambda _: httpx.Response(400, json={"error": "the weights are sour.;"}))
    with httpx.Client(transport=refusing, base_url="http://triton") as client:
        control = ModelControlClient(client, "http://triton", load_timeout_s=1)
        with pytest.raises(
            CommandError, match="gemma3n cannot be loaded: the weights are sour; no model is served"
        ):
            control.load()


@pytest.mark.long  # Triton 2.51 sometimes keeps the old model for longer: docs/operations.md
def test_unload_first(served: RunningLauncher) -> None:
    restarts = served.output.count("restarting it")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(talk, served, 15)
        time.sleep(0.5)
        assert reload(served, "--unload-first") == 0
        assert len(answer.result()) == 15, "an open answer comes to its end before the model goes"
    served.wait(served.is_ready, 10)
    assert served.output.count("restarting it") == restarts


def test_a_stub_that_dies_after_a_reload(served: RunningLauncher) -> None:
    restarts = served.output.count("restarting it")
    with restarted(served, limit_s=40):
        stubs(served)[-1].kill()
        until(served, "restarting it", limit_s=20, times=restarts + 1)


def reload(served: RunningLauncher, *flags: str) -> int:
    return main(["reload", "--url", served.triton_http, *flags])


@pytest.fixture(scope="module")
def of_toy(toy_flags: tuple[str, ...]) -> tuple[str, ...]:
    """The flags that tell ``reload`` where the toy's files are."""
    return toy_flags[2:]


def stubs(served: RunningLauncher) -> list[psutil.Process]:
    """The stubs that live, the newest last."""
    children = tritonserver(served).children()
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return sorted(
        (child for child in alive if child.name()[:15] == STUB_NAME[:15]), key=psutil.Process.create_time
    )


def talk(served: RunningLauncher, pieces: int) -> list[str]:
    """The pieces of an answer: each is the process id of the stub that said it."""
    said: list[str] = []
    question = {"prompt": "Hi", "max_tokens": pieces, "stream": True}
    url = f"{served.triton_http}/v2/models/gemma3n/generate_stream"
    with httpx.stream("POST", url, json=question, timeout=30, trust_env=False) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                said += json.loads(line.removeprefix("data: "))["text"].split()
    return said


def never_unready(served: RunningLauncher, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not served.is_ready():
            return False
        time.sleep(0.05)
    return True
