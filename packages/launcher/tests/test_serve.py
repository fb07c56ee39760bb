"""The launcher with the real tritonserver and the real gateway; the model is a toy."""

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from packages.launcher.tests import stack
from packages.launcher.tests.stack import Stack

from gemma_launcher.__main__ import main
from gemma_launcher.triton import STUB

Leftovers = Callable[[int], list[object]]
GRACE_S = 3
"""API_SHUTDOWN_SECONDS when nothing is set."""
SECRETS = {"API_KEYS": "sk-of-the-api", "HF_TOKEN": "of-the-hub", "OPENAI_API_KEY": "of-another-server"}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    toy_flags: tuple[str, ...],
    toy_playground: Path,
    leftovers: Leftovers,
) -> Iterator[Stack]:
    """One stack for all that it must survive; at the end Triton hangs, and yet it must stop in time."""
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


def tritonserver(served: Stack) -> psutil.Process:
    children = psutil.Process(served.process.pid).children()
    return next(child for child in children if child.name() == "tritonserver")


def gateway(served: Stack) -> psutil.Process:
    children = psutil.Process(served.process.pid).children()
    return next(child for child in children if "gemma_gateway" in child.cmdline())


def playground(served: Stack) -> psutil.Process:
    children = psutil.Process(served.process.pid).children()
    return next(child for child in children if "gemma_playground" in child.cmdline())


def stub(served: Stack) -> psutil.Process:
    return next(child for child in tritonserver(served).children() if STUB in " ".join(child.cmdline()))


def listening(pid: int) -> set[str]:
    """The addresses that a process listens on."""
    found = psutil.Process(pid).net_connections("tcp")
    return {connection.laddr[0] for connection in found if connection.status == psutil.CONN_LISTEN}


def until(served: Stack, words: str, limit_s: float, times: int = 1) -> None:
    """Waits until the launcher has said so, so many times."""
    served.wait(lambda: served.output.count(words) >= times, limit_s)


@contextmanager
def restarted(served: Stack, limit_s: float, services: int = 1) -> Iterator[None]:
    """Inside, some services are broken; afterwards all must be whole again."""
    words = "is up again, after "
    before = served.output.count(words)
    with within(limit_s):
        yield
        until(served, words, limit_s, times=before + services)
        served.wait(served.is_ready, limit_s)


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < limit_s


def test_ready(served: Stack) -> None:
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


def test_the_playground_comes_first_in_the_banner(served: Stack) -> None:
    until(served, "Gemma-Triton is ready", limit_s=10)
    banner = served.output[served.output.index("Gemma-Triton is ready") :].splitlines()
    assert banner[2].startswith(f"  playground  {served.playground}   open it in a browser")
    until(served, f"playground | playground: {served.playground}", limit_s=30)


def test_the_playground_gets_an_address_and_the_key_and_no_other_secret(served: Stack) -> None:
    served.wait(lambda: is_there(served), 30)
    told = httpx.get(served.playground, trust_env=False).json()
    environment = told["environment"]
    assert told["arguments"] == []
    assert environment["OPENAI_BASE_URL"] == f"{served.api}/v1"
    assert environment["OPENAI_API_KEY"] == SECRETS["API_KEYS"]
    assert not {"API_KEYS", "HF_TOKEN"} & set(environment)
    lines = [" ".join(process.cmdline()) for process in psutil.Process(served.process.pid).children()]
    assert not [secret for secret in SECRETS.values() if secret in served.output + "".join(lines)]


def is_there(served: Stack) -> bool:
    try:
        return httpx.get(served.playground, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def test_a_dead_playground_is_restarted_and_nobody_else_notices(served: Stack) -> None:
    served.wait(lambda: is_there(served), 30)
    with restarted(served, limit_s=60):
        playground(served).kill()
        until(served, "playground was killed by SIGKILL; starting it again now", limit_s=10)
        assert served.is_ready()
    assert is_there(served)


def test_a_taken_port_is_refused_at_once(served: Stack, elsewhere: Path, toy_flags: tuple[str, ...]) -> None:
    taken = served.triton_grpc.rpartition(":")[2]
    with stack.started(elsewhere, *toy_flags, "--triton-grpc-port", taken) as other:
        assert other.process.wait(10) == 1
    assert f"port {taken} is taken by tritonserver" in other.output
    assert "choose another with --triton-grpc-port or GEMMA_TRITON_GRPC_PORT" in other.output
    assert other.output.count("\n") == 1


def test_a_triton_elsewhere_is_used_and_none_is_started(served: Stack, elsewhere: Path) -> None:
    with stack.running(elsewhere, "--triton-url", served.triton_grpc) as second:
        assert "triton   |" not in second.output
        assert "playground" not in second.output
        assert httpx.get(f"{second.api}/health", trust_env=False).json()["model"] == "toy-checkpoint"
        assert second.stop() == 0
    assert served.is_ready(), "it is not ours to stop"


def test_a_dead_stub_is_noticed_and_triton_restarted(served: Stack) -> None:
    killed = stub(served)
    with restarted(served, limit_s=30):
        killed.kill()
        until(served, f"lost its Python stub (process {killed.pid} died)", limit_s=3)
    assert stub(served).pid != killed.pid


def test_a_dead_tritonserver_and_a_dead_gateway_are_restarted(served: Stack) -> None:
    with restarted(served, limit_s=30, services=2):
        gateway(served).kill()
        tritonserver(served).kill()
        until(served, "triton was killed by SIGKILL; starting it again", limit_s=5)
        until(served, "gateway was killed by SIGKILL; starting it again now", limit_s=5)


@pytest.mark.long
def test_a_stub_that_hangs_is_restarted(served: Stack) -> None:
    with restarted(served, limit_s=60):
        stub(served).suspend()
        until(served, "triton hangs: the model inside it does not answer", limit_s=40)


def test_the_model_is_loaded_anew_beside_open_answers(served: Stack, of_toy: tuple[str, ...]) -> None:
    """The API stays ready all the time, and an open answer comes to its end on the old model."""
    old, restarts = stub(served).pid, served.output.count("starting it again")
    with ThreadPoolExecutor() as pool:
        answer, ready = pool.submit(talk, served, 80), pool.submit(never_unready, served, 3.0)
        time.sleep(1.1)  # a second of Unix time, in which Triton's models are told apart
        assert reload(served, *of_toy) == 0
        assert not answer.done(), "it does not wait for open answers"
        assert set(talk(served, 2)) == {str(stubs(served)[-1].pid)}, "new requests reach the new model"
        assert ready.result()
        assert answer.result() == [str(old)] * 80
    time.sleep(1.0)
    assert served.output.count("starting it again") == restarts, "the old stub's end is no trouble"


@pytest.mark.long  # Triton 2.51 sometimes keeps the old model for longer: docs/operations.md
def test_the_model_is_unloaded_first_where_memory_does_not_hold_two(served: Stack) -> None:
    restarts = served.output.count("starting it again")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(talk, served, 15)
        time.sleep(0.5)
        assert reload(served, "--unload-first") == 0
        assert len(answer.result()) == 15, "an open answer comes to its end before the model goes"
    served.wait(served.is_ready, 10)
    assert served.output.count("starting it again") == restarts


def test_a_stub_that_dies_after_a_reload_is_noticed(served: Stack) -> None:
    restarts = served.output.count("starting it again")
    with restarted(served, limit_s=40):
        stubs(served)[-1].kill()
        until(served, "starting it again", limit_s=20, times=restarts + 1)


def reload(served: Stack, *flags: str) -> int:
    return main(["reload", "--url", served.triton_http, *flags])


@pytest.fixture(scope="module")
def of_toy(toy_flags: tuple[str, ...]) -> tuple[str, ...]:
    """The flags that tell ``reload`` where the toy's files are."""
    return toy_flags[2:]


def stubs(served: Stack) -> list[psutil.Process]:
    """The stubs that live, the newest last."""
    children = tritonserver(served).children()
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return sorted(
        (child for child in alive if child.name()[:15] == STUB[:15]), key=psutil.Process.create_time
    )


def talk(served: Stack, pieces: int) -> list[str]:
    """The pieces of an answer: each is the process id of the stub that said it."""
    said: list[str] = []
    question = {"prompt": "Hi", "max_tokens": pieces, "stream": True}
    url = f"{served.triton_http}/v2/models/gemma3n/generate_stream"
    with httpx.stream("POST", url, json=question, timeout=30, trust_env=False) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                said += json.loads(line.removeprefix("data: "))["text"].split()
    return said


def never_unready(served: Stack, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not served.is_ready():
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize(
    "moment_s", [0.9, None, *(pytest.param(moment, marks=pytest.mark.long) for moment in (0.3, 2.0))]
)
def test_kill_9_of_the_launcher_at_any_moment_leaves_nothing(
    moment_s: float | None,
    tmp_path: Path,
    toy_flags: tuple[str, ...],
    toy_playground: Path,
    leftovers: Leftovers,
) -> None:
    with stack.started(tmp_path, *toy_flags, playground=toy_playground) as served:
        if moment_s is None:
            until(served, "Started HTTPService", limit_s=60)
        else:
            time.sleep(moment_s)
        served.process.kill()
        served.process.wait()
    deadline = time.monotonic() + 10
    while leftovers(served.process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert ports_are_free(served)


def test_signals_while_the_model_loads_end_everything(
    tmp_path: Path, toy_flags: tuple[str, ...], leftovers: Leftovers
) -> None:
    with stack.started(tmp_path, *toy_flags, environment={"TOY_LOAD_S": "60"}) as served:
        until(served, "the toy is imported", limit_s=30)
        with within(10):
            served.process.send_signal(signal.SIGINT)
            served.process.send_signal(signal.SIGINT)  # the second one: at once
            assert served.process.wait(10) == 0
    assert leftovers(served.process.pid) == []


def test_a_model_that_cannot_be_loaded_is_given_up_with_its_reason(
    tmp_path: Path, toy_flags: tuple[str, ...], leftovers: Leftovers
) -> None:
    with stack.started(tmp_path, *toy_flags, environment={"TOY_TROUBLE": "the weights are sour"}) as served:
        assert served.process.wait(60) == 1
    assert served.output.count("ValueError: the weights are sour; starting it again") == 2
    assert "error: triton ended with exit code 1 while starting: " in served.output
    assert served.output.rstrip().endswith("ValueError: the weights are sour; gave up after 3 tries")
    assert "Traceback" not in served.output
    assert leftovers(served.process.pid) == []


def test_a_stub_that_crashes_names_its_signal(
    tmp_path: Path, toy_flags: tuple[str, ...], leftovers: Leftovers
) -> None:
    with stack.started(tmp_path, *toy_flags, environment={"TOY_CRASH": "yes"}) as served:
        assert served.process.wait(60) == 1
    assert "its Python stub was killed by SIGSEGV" in served.output.splitlines()[-1]
    assert leftovers(served.process.pid) == []


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_sigterm_with_16_streams_open_leaves_nothing(
    rounds: int, tmp_path: Path, toy_flags: tuple[str, ...], leftovers: Leftovers
) -> None:
    """Each finishes within the limit or ends with an error event, the long ones so; then nothing is there."""
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        with stack.running(folder, *toy_flags, environment={"TMPDIR": str(folder)}) as served:
            endings, served_s = sixteen_streams(served)
        assert endings[1::2] == ["error"] * 8, served.output
        assert {"finished"} <= set(endings[::2]) <= {"finished", "error"}, served.output
        assert served_s < GRACE_S + 5
        assert leftovers(served.process.pid) == []
        assert {path.name for path in folder.iterdir()} == {"serve.log"}
        assert ports_are_free(served)


def sixteen_streams(served: Stack) -> tuple[list[str], float]:
    """How 16 answers end when the launcher gets SIGTERM, and how long it lived after it."""
    begun = threading.Semaphore(0)
    with (
        httpx.Client(base_url=served.api, timeout=30, trust_env=False) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        streams = [pool.submit(stream, client, pieces, begun) for pieces in (5, 500) * 8]
        for _ in streams:
            assert begun.acquire(timeout=20)
        began = time.monotonic()
        assert served.stop() == 0
        return [ending.result() for ending in streams], time.monotonic() - began


def stream(client: httpx.Client, pieces: int, begun: threading.Semaphore) -> str:
    """How a streamed answer ends."""
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "toy-checkpoint", "messages": messages, "max_tokens": pieces, "stream": True}
    ending = "cut off"
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        for number, line in enumerate(answer.iter_lines()):
            if number == 0:
                begun.release()
            if line.startswith('data: {"error"'):
                ending = "error"
            elif line == "data: [DONE]" and ending != "error":
                ending = "finished"
    return ending


def ports_are_free(served: Stack) -> bool:
    urls = served.api, served.triton_http, f"http://{served.triton_grpc}", served.metrics, served.playground
    for url in filter(None, urls):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", httpx.URL(url).port or 0))
    return True


def test_no_triton_at_the_given_address_is_said_and_not_fatal(tmp_path: Path) -> None:
    with stack.started(tmp_path, "--triton-url", "127.0.0.1:9") as served:
        until(served, "waiting for the gateway to reach the model at 127.0.0.1:9", limit_s=30)
        assert httpx.get(f"{served.api}/health/live", trust_env=False).is_success
        assert httpx.get(f"{served.api}/health", trust_env=False).status_code == 503
        assert served.stop() == 0
