"""What the builds of the images install, and that what they built starts, writes nothing, and stops."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dockerfile
from containers import (
    API,
    PLAYGROUND,
    TRITON,
    Server,
    gateway,
    health,
    playground,
    started,
    status,
    wait,
    with_tmp,
)
from dockerfile import Dockerfile, Place
from package_index import POETRY, pip_index
from stack import ROOT, free_ports

only_in_ci = pytest.mark.skipif(
    not os.environ.get("CI"), reason="an install from the package index, half a minute: set CI=1 to run it"
)


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


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_build_brings_a_triton_that_serves_the_bundled_model(tmp_path: Path) -> None:
    """5 GB; nothing of the checkout but the server itself, which is the base image's."""
    place = dockerfile.build(TRITON, tmp_path / "image", POETRY, poetry_environment())
    names = _distributions(place)
    assert {"gemma_model", "gemma_wire", "torch", "timm"} <= names
    assert not names & {"gemma_gateway", "gemma_launcher", "gemma_playground", "fastapi", "nvidia_pytriton"}
    (tmp_path / "run").mkdir()
    server = Server(tmp_path / "run", place.folders)
    with server.started() as process:
        wait(process, lambda: server.health("0") == (0, ""), server.log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, server.log.read_text()[-4000:]


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


def _starts_and_stops(place: Place, tmp_path: Path) -> None:
    """Without a Triton the gateway runs, says that it is not healthy, and ends on SIGTERM with 0."""
    argv, environment = gateway(place, free_ports(1)[0])
    url = f"http://127.0.0.1:{environment['API_PORT']}"
    with started(argv, environment, tmp_path / "log") as process:
        wait(process, lambda: status(f"{url}/health/live") == 200, tmp_path / "log")
        code, said = health(API.image, place, environment)
        assert (code, said[:4]) == (1, "503:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert health(API.image, place, environment)[0] == 1


def _the_playground_starts_and_stops(place: Place, tmp_path: Path) -> None:
    """Without a gateway its page is there, it is healthy, and it ends on SIGTERM with 0."""
    place = with_tmp(place, tmp_path)
    argv, environment = playground(place)
    with started(argv, environment, tmp_path / "log") as process:
        wait(process, lambda: health(PLAYGROUND.image, place, environment) == (0, ""), tmp_path / "log")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "log").read_text()[-4000:]
    assert health(PLAYGROUND.image, place, environment)[0] == 1


@pytest.mark.parametrize(
    ("file", "has", "lacks"),
    [
        (API, {"gemma-gateway", "fastapi"}, {"torch", "nvidia-pytriton", "gemma-model"}),
        (
            TRITON,
            {"gemma-model", "torch", "timm", "humming-kernels", "nvidia-cuda-cccl"},
            {"fastapi", "nvidia-pytriton", "gemma-gateway"},
        ),
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
