"""What the images run, run without Docker: the same commands in the same order and environment.

What Docker itself would do (the base images, the layers, the isolation) is the only thing left out.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

import compose
from dockerfile import CHECKOUT, Place, Stage, parse
from gemma_launcher.processes import orphan_cleanup, triton_server
from stack import ROOT, eventually, free_ports

API = parse(ROOT / "Dockerfile.api")
PLAYGROUND = parse(ROOT / "Dockerfile.playground")
TRITON = parse(ROOT / "Dockerfile.triton")


SHARED_MEMORY = f"deploy{os.getpid()}-"
"""What the files of this process's servers in /dev/shm begin with."""


class Server:
    """The Triton of the wheel, started with the image's own command line.

    Args:
        folder: for its log and its backends.
        folders: the image's own ones here: those of the checkout, or of a build.
    """

    def __init__(self, folder: Path, folders: Mapping[str, Path] = CHECKOUT.folders) -> None:
        self.http, self.grpc, self.metrics = free_ports(3)
        wheel = triton_server.find_wheel()
        triton_server.prepare_backend_folder(wheel, folder)
        places = {
            "/opt/tritonserver/bin/tritonserver": wheel.server,
            "/cache": Path.home(),  # where this machine keeps what was compiled once
            **folders,
        }
        self.place = Place(places)
        self.log = folder / "log"
        image = TRITON.image
        self.argv = [self.place.move(word) for word in (*image.argv("ENTRYPOINT"), *image.argv("CMD"))]
        self.argv += self._here(folder)
        own = self.place.environment(image)
        base = {name: self.place.move(value) for name, value in compose.environment("triton-cpu").items()}
        self.environment = {
            **triton_server.server_environment({**own, **base}, wheel, folder),
            "PATH": own["PATH"],
            "GEMMA_TRITON_HTTP_PORT": str(self.http),
            "OMP_NUM_THREADS": "1",
        }

    @contextmanager
    def started(self) -> Iterator[psutil.Popen]:
        """As ``started``; and the shared memory that a dead stub leaves goes, as a container's does."""
        try:
            with started(self.argv, self.environment, self.log) as process:
                yield process
        finally:
            orphan_cleanup.remove_shared_memory(SHARED_MEMORY)

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
            f"--backend-config=python,shm-region-prefix-name={SHARED_MEMORY}",
            "--allow-gpu-metrics=false",
            "--exit-timeout-secs=2",  # so long it waits for a stub that is dead
        ]


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


def wait(process: psutil.Popen, condition: Callable[[], bool], log: Path) -> None:
    """Until the condition holds; fails, with the log, when the process ends before or 4 minutes pass."""
    assert eventually(lambda: process.poll() is not None or condition(), 240), log.read_text()[-4000:]
    assert process.poll() is None, log.read_text()[-4000:]


def status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code
    except httpx.HTTPError:
        return 0
