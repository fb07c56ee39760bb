"""What the images run, run without Docker: the same commands in the same order and environment.

What Docker itself would do (the base images, the layers, the isolation) is the only thing left out.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

import compose
import dockerfile
from dockerfile import CHECKOUT, Dockerfile, Place, Stage, parse
from gemma_launcher import models, triton
from gemma_launcher.settings import Settings
from stack import ROOT, eventually, free_ports

API = parse(ROOT / "Dockerfile.api")
PLAYGROUND = parse(ROOT / "Dockerfile.playground")
TRITON = parse(ROOT / "Dockerfile.triton")
POETRY = ROOT / ".tools" / "poetry"
only_in_ci = pytest.mark.skipif(
    not os.environ.get("CI"), reason="an install from the package index, half a minute: set CI=1 to run it"
)


@contextmanager
def started(argv: list[str], environment: Mapping[str, str], log: Path) -> Iterator[psutil.Popen]:
    """A process with this environment and no other; killed at the end if it still runs."""
    with log.open("ab") as output:
        process = psutil.Popen(argv, env=dict(environment), stdout=output, stderr=output)
    try:
        yield process
    finally:
        for each in [*process.children(recursive=True), process] if process.is_running() else []:
            each.kill()
        process.wait(10)


def health(stage: Stage, place: Place, environment: Mapping[str, str], ended: str = "") -> tuple[int, str]:
    """The image's own health check: exit code and what it says. ``ended``: a process in place of number 1."""
    argv = [ended if word == "1" else place.move(word) for word in stage.health]
    run = subprocess.run(argv, env=dict(environment), capture_output=True, text=True, check=False, timeout=20)
    assert not run.stderr, run.stderr
    return run.returncode, run.stdout


def gateway(place: Place, triton_port: int) -> tuple[list[str], dict[str, str]]:
    """The api container's command line and environment, with this machine's paths, addresses and ports."""
    (port,) = free_ports(1)
    environment = {**place.environment(API.image), **compose.environment("api")}
    here = {"API_HOST": "127.0.0.1", "API_PORT": str(port), "TRITON_GRPC_URL": f"127.0.0.1:{triton_port}"}
    assert environment["TRITON_GRPC_URL"] == "triton:8001"
    return [place.move(word) for word in API.image.argv("ENTRYPOINT")], {**environment, **here}


def playground(place: Place) -> tuple[list[str], dict[str, str]]:
    """As ``gateway``, of the playground container; there is no ``api`` for it to talk to."""
    (port,) = free_ports(1)
    environment = {**place.environment(PLAYGROUND.image), **compose.environment("playground")}
    assert environment["OPENAI_BASE_URL"] == "http://api:8080/v1"
    here = {"PLAYGROUND_HOST": "127.0.0.1", "PLAYGROUND_PORT": str(port)}
    return [place.move(word) for word in PLAYGROUND.image.argv("ENTRYPOINT")], {**environment, **here}


def with_tmp(place: Place, folder: Path) -> Place:
    """The same place with a folder for the tmpfs that compose mounts."""
    return Place({"/tmp": folder, **place.folders})


def pip_index() -> str:
    """The package index that pip is configured for, as the Makefile finds it."""
    asked = (
        "from pip._internal.commands import create_command as c; "
        "print(c('install').parser.get_default_values().index_url)"
    )
    command = [str(POETRY / "bin" / "python"), "-c", asked]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def poetry_environment() -> dict[str, str]:
    """This machine's certificates and proxies, and its mirror: what a build gets by --build-arg."""
    kept = {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))
    }
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {**kept, **proxies, "POETRY_PYPI_MIRROR_URL": pip_index(), "HOME": str(Path.home())}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The api image's build, carried out in an empty folder."""
    root = tmp_path_factory.mktemp("api")
    return dockerfile.build(API, root, POETRY, poetry_environment())


@pytest.fixture(scope="module")
def installed_playground(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The playground image's."""
    root = tmp_path_factory.mktemp("playground")
    return dockerfile.build(PLAYGROUND, root, POETRY, poetry_environment())


HEAVY = {"torch", "transformers", "timm", "gemma_model", "gemma_launcher", "nvidia_pytriton"}


@only_in_ci
@pytest.mark.timeout(300)
def test_the_build_brings_the_gateway_and_no_torch(installed: Place) -> None:
    names = _distributions(installed)
    assert {"gemma_gateway", "gemma_wire", "fastapi", "tritonclient"} <= names
    assert not names & HEAVY
    assert not list((installed.folders["/app"] / "packages").rglob("tests"))


@only_in_ci
@pytest.mark.timeout(600)
def test_the_build_brings_the_playground_and_nothing_of_ours_beside(installed_playground: Place) -> None:
    names = _distributions(installed_playground)
    assert {"gemma_playground", "gradio", "openai"} <= names
    assert not names & {*HEAVY, "gemma_gateway", "gemma_wire"}
    assert not list((installed_playground.folders["/app"] / "playground").rglob("tests"))


def _distributions(place: Place) -> set[str]:
    found = place.folders["/opt/venv"].glob("lib/python*/site-packages/*.dist-info")
    return {path.name.split("-")[0] for path in found}


@only_in_ci
@pytest.mark.timeout(300)
def test_what_was_built_starts_writes_nothing_and_stops(installed: Place, tmp_path: Path) -> None:
    before = _tree(installed)
    _starts_and_stops(installed, tmp_path)
    assert _tree(installed) ^ before == set()  # so that a read-only root is enough


@only_in_ci
@pytest.mark.timeout(600)
def test_the_playground_that_was_built_writes_nothing_but_in_tmp(
    installed_playground: Place, tmp_path: Path
) -> None:
    (gradio,) = installed_playground.folders["/opt/venv"].glob("lib/python*/site-packages/gradio")
    # Gradio tries to keep a seed beside its code. A folder of that name is as unwritable as in the image.
    (gradio / "hash_seed.txt").mkdir()
    before = _tree(installed_playground)
    _the_playground_starts_and_stops(installed_playground, tmp_path)
    assert _tree(installed_playground) ^ before == set()


def _tree(place: Place) -> set[tuple[Path, int]]:
    """Every file and folder, and when it was changed."""
    roots = (place.folders["/opt/venv"], place.folders["/app"])
    return {(path, path.stat().st_mtime_ns) for root in roots for path in root.rglob("*")}


def test_the_entrypoint_starts_and_stops(tmp_path: Path) -> None:
    _starts_and_stops(CHECKOUT, tmp_path)


def _starts_and_stops(place: Place, tmp_path: Path) -> None:
    """Without a Triton the gateway runs, says that it is not healthy, and ends on SIGTERM with 0."""
    argv, environment = gateway(place, free_ports(1)[0])
    url = f"http://127.0.0.1:{environment['API_PORT']}"
    with started(argv, environment, tmp_path / "log") as process:
        _wait(process, lambda: _status(f"{url}/health/live") == 200, tmp_path / "log")
        code, said = health(API.image, place, environment)
        assert (code, said[:4]) == (1, "503:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert health(API.image, place, environment)[0] == 1


@pytest.mark.timeout(400)
def test_the_playgrounds_entrypoint_starts_and_stops(tmp_path: Path) -> None:
    _the_playground_starts_and_stops(CHECKOUT, tmp_path)


def _the_playground_starts_and_stops(place: Place, tmp_path: Path) -> None:
    """Without a gateway its page is there, it is healthy, and it ends on SIGTERM with 0."""
    place = with_tmp(place, tmp_path)
    argv, environment = playground(place)
    with started(argv, environment, tmp_path / "log") as process:
        _wait(process, lambda: health(PLAYGROUND.image, place, environment) == (0, ""), tmp_path / "log")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "log").read_text()[-4000:]
    assert health(PLAYGROUND.image, place, environment)[0] == 1


def _wait(process: psutil.Popen, condition: Callable[[], bool], log: Path) -> None:
    """Until the condition holds; fails, with the log, when the process ends before or 4 minutes pass."""
    assert eventually(lambda: process.poll() is not None or condition(), 240), log.read_text()[-4000:]
    assert process.poll() is None, log.read_text()[-4000:]


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


@pytest.mark.parametrize(
    ("file", "has", "lacks"),
    [
        (API, {"gemma-gateway", "fastapi"}, {"torch", "nvidia-pytriton", "gemma-model"}),
        (TRITON, {"gemma-model", "torch", "timm"}, {"fastapi", "nvidia-pytriton", "gemma-gateway"}),
        (PLAYGROUND, {"gemma-playground", "gradio", "openai"}, {"torch", "nvidia-pytriton", "gemma-wire"}),
    ],
    ids=["api", "triton", "playground"],
)
def test_the_lock_has_the_group(file: Dockerfile, has: set[str], lacks: set[str], tmp_path: Path) -> None:
    """Poetry's own plan for the install, in an empty virtual environment: 5 GB are not fetched."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    install = next(
        run for run in file.build.all("RUN") if "--no-directory" not in run and "install --only" in run
    )
    argv = install.split(" && ")[0].split("/opt/poetry/bin/poetry ", 1)[1].split()
    run = subprocess.run(
        [POETRY / "bin" / "poetry", *argv, "--dry-run"],
        cwd=ROOT,
        env={**poetry_environment(), "VIRTUAL_ENV": str(tmp_path), "POETRY_VIRTUALENVS_IN_PROJECT": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    planned = {line.split()[2] for line in run.stdout.splitlines() if "- Installing " in line}
    assert has <= planned
    assert not lacks & planned


def test_triton_is_started_as_the_launcher_starts_it(tmp_path: Path) -> None:
    """Only where its files lie and how long it may take to end are the image's own."""
    wheel = triton.find_wheel()
    ours = _flags(list(triton.command(Settings(), wheel, tmp_path, tmp_path, "name")))
    images = _flags(TRITON.image.argv("ENTRYPOINT") + TRITON.image.argv("CMD"))
    assert int(images["--exit-timeout-secs"]) >= int(ours["--exit-timeout-secs"])
    for own in ("--model-repository", "--exit-timeout-secs"):
        del images[own]
    assert images.items() <= ours.items()


def _flags(argv: list[str]) -> dict[str, str]:
    """``--a=b`` and ``--backend-config=python,a=b`` by name."""
    return {name: value for name, _, value in (word.rpartition("=") for word in argv[1:])}


class Server:
    """The Triton of the wheel, started with the image's own command line."""

    def __init__(self, folder: Path) -> None:
        self.http, self.grpc, self.metrics = free_ports(3)
        wheel = triton.find_wheel()
        triton.prepare(wheel, folder)
        places = {
            "/opt/tritonserver/bin/tritonserver": wheel.server,
            "/cache": Path.home(),  # where this machine keeps what was compiled once
            **CHECKOUT.folders,
        }
        self.place = Place(places)
        self.log = folder / "log"
        image = TRITON.image
        self.argv = [self.place.move(word) for word in (*image.argv("ENTRYPOINT"), *image.argv("CMD"))]
        self.argv += self._here(folder)
        base = {**self.place.environment(image), **compose.environment("triton-cpu")}
        assert self.place.environment(image)["MODEL_NAME"] == str(ROOT / models.BUNDLED)
        served = models.resolve(Settings(model_name=models.TINY.name), os.environ, print)
        self.environment = {
            **triton.environment(base, wheel, folder),
            "MODEL_NAME": str(served.folder),
            "GEMMA_TRITON_HTTP_PORT": str(self.http),
            "OMP_NUM_THREADS": "1",
        }

    def health(self, process: str) -> tuple[int, str]:
        """The image's health check, with this process where the container's first one is meant."""
        return health(TRITON.image, self.place, self.environment, ended=process)

    def _here(self, folder: Path) -> list[str]:
        """What the image's own file system and network namespace would do, and less patience."""
        ports = {"http": self.http, "grpc": self.grpc, "metrics": self.metrics}
        addresses = [f"--{name}-address=127.0.0.1" for name in ports]
        return [
            f"--backend-directory={folder / 'backends'}",
            *addresses,
            *(f"--{name}-port={port}" for name, port in ports.items()),
            f"--backend-config=python,shm-region-prefix-name=deploy{os.getpid()}-",
            "--allow-gpu-metrics=false",
            "--exit-timeout-secs=2",  # so long it waits for a stub that is dead
        ]


@pytest.mark.timeout(400)
def test_the_whole_stack_as_compose_would_start_it(tmp_path: Path) -> None:
    server = Server(tmp_path)
    with started(server.argv, server.environment, server.log) as process:
        _wait(process, lambda: server.health("0")[0] == 0, server.log)
        argv, environment = gateway(CHECKOUT, server.grpc)
        with started(argv, environment, tmp_path / "api.log") as api:
            url = f"http://127.0.0.1:{environment['API_PORT']}"
            _wait(api, lambda: _status(f"{url}/health/ready") == 200, tmp_path / "api.log")
            assert health(API.image, CHECKOUT, environment) == (0, "")
            _answers(url)
            run_the_questions_of_the_docs(server.http, environment["API_PORT"])
            api.send_signal(signal.SIGTERM)
            assert api.wait(20) == 0
        _a_dead_stub_ends_the_server(server, process)


def _answers(url: str) -> None:
    question = {"model": "gemma3n", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=question, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.text)["usage"]["completion_tokens"] > 0


def run_the_questions_of_the_docs(triton_port: int, api_port: str) -> None:
    """The curl calls of docs/operations.md, as they are written but for the ports."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    calls = re.findall(r"^curl (http\S+)$", page, re.MULTILINE)
    assert len(calls) >= 3
    for call in calls:
        here = call.replace("localhost:8000", f"127.0.0.1:{triton_port}")
        here = here.replace("localhost:8080", f"127.0.0.1:{api_port}")
        subprocess.run(["curl", "-sS", "--fail", "--noproxy", "*", here], check=True, capture_output=True)


def _a_dead_stub_ends_the_server(server: Server, process: psutil.Popen) -> None:
    """The health check ends what cannot heal, and the restart policy would start it anew."""
    for stub in process.children():
        stub.kill()
    code, said = server.health(str(process.pid))
    assert code == 1
    assert f"ending process {process.pid}" in said
    process.wait(30)
