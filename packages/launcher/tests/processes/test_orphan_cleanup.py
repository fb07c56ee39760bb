import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gemma_launcher.console import Console
from gemma_launcher.errors import CommandError
from gemma_launcher.processes import orphan_cleanup, ports, preflight
from gemma_launcher.processes.run_scope import RunScope
from gemma_launcher.settings import load_settings
from gemma_launcher.tools import doctor

Wait = Callable[..., None]
Leftovers = Callable[[int], list[object]]

# A tree as unpleasant as they come: one ignores SIGTERM, one left for a session of its own, one is stopped.
TREE = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "60"], start_new_session=True)
stopped = subprocess.Popen(["sleep", "60"])
os.kill(stopped.pid, signal.SIGSTOP)
print("ready", flush=True)
time.sleep(60)
"""

LAUNCHER = """
import os, subprocess, sys, time
from gemma_launcher.processes import orphan_cleanup
from gemma_launcher.processes.run_scope import RunScope
with RunScope() as scope:
    command = [sys.executable, "-c", sys.argv[1]]
    tree = subprocess.Popen(command, env=scope.tag_environment(os.environ), stdout=subprocess.PIPE)
    tree.stdout.readline()
    (orphan_cleanup.SHARED_MEMORY / f"{scope.name}-region").write_bytes(b"x")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def launcher() -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, TREE], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


def test_kill_9_of_the_launcher_leaves_nothing(
    launcher: subprocess.Popen[bytes], leftovers: Leftovers, wait_for: Wait
) -> None:
    assert len(leftovers(launcher.pid)) == 6  # cleanup process, three of the tree, folder, shared memory
    launcher.kill()
    launcher.wait()
    wait_for(lambda: not leftovers(launcher.pid))


def test_leaving_the_context_leaves_nothing_even_when_the_cleanup_process_was_killed(
    leftovers: Leftovers,
) -> None:
    with RunScope() as scope:
        tree = subprocess.Popen(
            [sys.executable, "-c", TREE], env=scope.tag_environment(os.environ), stdout=subprocess.PIPE
        )
        assert tree.stdout is not None
        tree.stdout.readline()
        tree.stdout.close()
        os.kill(find_cleanup_process(scope).pid, signal.SIGKILL)
    tree.wait()
    assert leftovers(os.getpid()) == []


def test_a_cleanup_process_that_was_killed_is_replaced(wait_for: Wait) -> None:
    with RunScope() as scope:
        first = find_cleanup_process(scope)
        scope.ensure_cleanup_process()
        assert find_cleanup_process(scope) == first
        first.kill()
        wait_for(lambda: not first.is_running() or first.status() == psutil.STATUS_ZOMBIE)
        scope.ensure_cleanup_process()
        assert find_cleanup_process(scope) != first


def test_other_processes_are_not_killed(tmp_path: Path) -> None:
    with RunScope():
        other = subprocess.Popen(
            ["sleep", "60"], env={**os.environ, orphan_cleanup.RUN_VARIABLE: f"gemma-{os.getpid()}-other"}
        )
    assert other.poll() is None
    other.kill()
    other.wait()


def test_the_cleanup_process_is_found_by_no_search_for_the_launcher() -> None:
    with RunScope() as scope:
        command = " ".join(find_cleanup_process(scope).cmdline())
    assert "gemma" not in command.removeprefix(os.path.realpath(sys.executable))


def find_cleanup_process(scope: RunScope) -> psutil.Process:
    """The running cleanup process, once the system shows its command line."""
    deadline = time.monotonic() + 5
    while True:
        for child in psutil.Process().children():
            if "orphan_cleanup.py" in child.cmdline() and marked_by(child, scope):
                return child
        assert time.monotonic() < deadline, "no cleanup process"
        time.sleep(0.01)


def marked_by(process: psutil.Process, scope: RunScope) -> bool:
    return process.environ().get(orphan_cleanup.RUN_VARIABLE) == scope.name


ORPHAN = """
import socket, sys, time
server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen()
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.fixture
def listener() -> Iterator[Callable[[str], tuple[subprocess.Popen[bytes], int]]]:
    """Starts processes that listen, each as a member of a run."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run: str) -> tuple[subprocess.Popen[bytes], int]:
        command = [sys.executable, "-c", ORPHAN]
        process = subprocess.Popen(
            command, env={**os.environ, orphan_cleanup.RUN_VARIABLE: run}, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_next_start_ends_a_run_whose_cleanup_process_was_killed(
    listener: Callable[[str], tuple[subprocess.Popen[bytes], int]], tmp_path: Path
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    run = f"gemma-{gone.pid}-{os.urandom(4).hex()}"
    orphan_cleanup.run_folder(run).mkdir()
    orphan, port = listener(run)
    settings = load_settings({"api_port": port, "triton_grpc_url": "127.0.0.1:9", "gemma_playground": False})
    (finding,) = doctor._ports(settings)
    assert (finding.status, run in finding.text) == ("warn", True)
    with (tmp_path / "log").open("wb") as log, RunScope() as scope:
        console = Console(log.fileno())
        assert preflight.run_preflight_checks(settings, scope, console) is None
        console.close()
    assert f"ending the processes of a killed Gemma-Triton ({run})" in (tmp_path / "log").read_text()
    assert orphan.wait(5) == -signal.SIGKILL
    assert not orphan_cleanup.run_folder(run).exists()


def test_a_running_gemma_triton_is_reported_and_not_ended(
    listener: Callable[[str], tuple[subprocess.Popen[bytes], int]],
) -> None:
    running, port = listener(f"gemma-{os.getpid()}-other")
    settings = load_settings({"api_port": port, "triton_grpc_url": "127.0.0.1:9", "gemma_playground": False})
    (finding,) = doctor._ports(settings)
    assert finding.status == "warn"
    assert f"is used by a running Gemma-Triton (process {os.getpid()})" in finding.text
    with pytest.raises(
        CommandError, match=rf"of a running Gemma-Triton, which `kill {os.getpid()}` stops; choose"
    ):
        ports.check_ports(preflight.required_ports(settings))
    assert running.poll() is None
