"""A container engine for the tests: the one that runs, or a dockerd of their own; and the images in it.

With an engine that runs, its own builder builds the images from the base images that the Dockerfiles name.
Where none runs and this is root with dockerd, buildah and debootstrap installed, the tests start a dockerd
with its own folder, socket and process files, and build on stand-ins (``base_images.py``).
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import base_images
import compose
from package_index import pip_index
from stack import ROOT, eventually

FOLDER = ROOT / "build" / "containers"
"""The images and layers of the tests' own engine; kept, so that a second run takes little time."""

PROJECT = "gemma-triton-test"
IMAGES = {"gemma-triton": "triton", "gemma-triton-api": "api", "gemma-triton-playground": "playground"}
BUILD_S = 3600
COMMAND_S = 600


@dataclass(frozen=True)
class Engine:
    """A running engine, and how to ask it.

    Args:
        environment: of every command; ``DOCKER_HOST`` says which engine.
        has_stand_ins: whether the base images are the tests' own.
    """

    environment: dict[str, str] = field(repr=False)
    has_stand_ins: bool

    def docker(self, *arguments: str | Path, timeout: float = COMMAND_S) -> str:
        """Run ``docker``; its output. An assertion fails with what it said when it fails."""
        return self._run(["docker", *arguments], timeout)

    def compose(self, *arguments: str | Path, shell: dict[str, str] | None = None) -> str:
        """Run Docker Compose on this project; ``shell``: variables of the shell."""
        command = compose.command()
        assert command is not None
        place = ("--project-directory", ROOT, "--project-name", PROJECT, "--file", compose.FILE)
        return self._run([*command, *place, *arguments], COMMAND_S, shell or {})

    def inspect(self, name: str) -> dict[str, Any]:
        """What the engine knows of a container or an image."""
        return dict(json.loads(self.docker("inspect", name))[0])

    def written(self, name: str) -> set[str]:
        """What a container has written into its own layer, without mount points, which the engine makes."""
        mounts = [Path(mount["Destination"]) for mount in self.inspect(name)["Mounts"]]
        places = {str(place) for mount in mounts for place in (mount, *mount.parents)}
        changed = self.docker("diff", name).splitlines()
        return {line.partition(" ")[2] for line in changed} - places

    def _run(self, argv: list[str | Path], timeout: float, shell: dict[str, str] | None = None) -> str:
        run = subprocess.run(
            argv,
            env={**self.environment, **(shell or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert run.returncode == 0, f"{argv}: {run.stdout[-4000:]}{run.stderr[-4000:]}"
        return run.stdout.strip()


def missing() -> str:
    """Why there is no engine and none can be started; empty when there is one."""
    if compose.command() is None:
        return "no Docker Compose 2; .ci/tools brings one"
    if _runs(_environment()):
        return ""
    if os.geteuid() != 0:
        return "no container engine runs, and only root can start one"
    absent = [name for name in ("docker", "dockerd", *base_images.NEEDED) if shutil.which(name) is None]
    return f"no container engine runs, and none can be started without {', '.join(absent)}" if absent else ""


@contextmanager
def running() -> Iterator[Engine]:
    """The engine that runs, or one for this while; with the three images."""
    environment = _environment()
    if _runs(environment):
        engine = Engine(environment, has_stand_ins=False)
        engine.compose("--profile", "cpu", "build")
        yield engine
        return
    build_on_stand_ins()
    with _dockerd() as host:
        engine = Engine({**environment, "DOCKER_HOST": host}, has_stand_ins=True)
        for image in (*IMAGES, base_images.PROMETHEUS):
            _load(engine, image)
        base_images.Buildah(FOLDER / "buildah").unmount()
        yield engine


def build_on_stand_ins() -> None:
    """The three images with buildah, from the Dockerfiles as they are; unchanged layers are used again."""
    buildah = base_images.Buildah(FOLDER / "buildah")
    base_images.make(buildah)
    arguments = {
        "PYTHON_IMAGE": base_images.PYTHON,
        "TRITON_TAG": "stand-in",
        "PIP_INDEX_URL": pip_index(),
    }
    for image, file in IMAGES.items():
        buildah(
            *("bud", "--network", "host", "--isolation", "chroot", "--format", "docker", "--pull-never"),
            *("--layers", *(f"--build-arg={name}={value}" for name, value in arguments.items())),
            *("--file", ROOT / f"Dockerfile.{file}", "--tag", f"localhost/{image}", ROOT),
        )


def _environment() -> dict[str, str]:
    """Of the shell only what an engine's client needs, so that no setting reaches the containers."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **kept}


def _runs(environment: dict[str, str]) -> bool:
    asked = subprocess.run(["docker", "info"], env=environment, capture_output=True, check=False, timeout=30)
    return asked.returncode == 0 and b"ERROR" not in asked.stderr


@contextmanager
def _dockerd() -> Iterator[str]:
    """A dockerd that shares nothing with another one and leaves the firewall alone; its ``DOCKER_HOST``."""
    had_bridge = Path("/sys/class/net/docker0").exists()
    with tempfile.TemporaryDirectory(prefix="dockerd-") as folder:
        host = f"unix://{folder}/docker.sock"
        place = [f"--data-root={FOLDER / 'docker'}", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
        network = ["--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        argv = ["dockerd", f"--host={host}", "--storage-driver=overlay2", *place, *network]
        log = Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(argv, stdout=output, stderr=output)
        try:
            up = eventually(lambda: _runs({**_environment(), "DOCKER_HOST": host}), 60)
            assert up, log.read_text()[-4000:]
            yield host
        finally:
            process.terminate()
            process.wait(60)
            subprocess.run(["umount", f"{folder}/exec/netns/default"], check=False, capture_output=True)
            if not had_bridge:
                subprocess.run(["ip", "link", "delete", "docker0"], check=False, capture_output=True)


def _load(engine: Engine, image: str) -> None:
    """Hand the engine an image of buildah's, unless it has this one."""
    buildah = base_images.Buildah(FOLDER / "buildah")
    tagged = image if ":" in image else f"{image}:latest"
    local = tagged if image == base_images.PROMETHEUS else f"localhost/{tagged}"
    built = buildah("inspect", "--type", "image", "--format", "{{.FromImageID}}", local)
    if built in engine.docker("images", "--no-trunc", "--quiet", tagged):
        return
    push = buildah.command("push", "--quiet", built, f"docker-archive:/dev/stdout:{tagged}")
    with subprocess.Popen(push, stdout=subprocess.PIPE) as archive:
        load = ["docker", "load", "--quiet"]
        subprocess.run(load, env=engine.environment, stdin=archive.stdout, check=True, capture_output=True)
    assert archive.returncode == 0, f"buildah push {local} failed"
