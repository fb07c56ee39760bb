"""The Dockerfiles, read: what hadolint says, and what this project asks of them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dockerfile
from dockerfile import DOCKERFILES, Dockerfile
from gemma_launcher.checkpoints.resolver import BUNDLED_CHECKPOINT
from stack import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BIN = Path(sys.prefix) / "bin"
OLDEST_TRITON = (25, 8)
"""Older ones crash when their HTTP port is sent a JSON of some megabytes."""


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def any_file(request: pytest.FixtureRequest) -> Dockerfile:
    return dockerfile.parse(request.param)


def test_there_are_three() -> None:
    assert [path.suffix for path in DOCKERFILES] == [".api", ".playground", ".triton"]


def test_hadolint_is_content() -> None:
    run = subprocess.run([BIN / "hadolint", *DOCKERFILES], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_base_images_are_pinned(any_file: Dockerfile) -> None:
    for image in any_file.bases():
        assert re.search(r":\d+(\.\d+)+-[a-z0-9-]+$", image), image
    syntax = any_file.path.read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"# syntax=docker/dockerfile:\d+\.\d+\.\d+", syntax), syntax


def test_triton_is_new_enough() -> None:
    tag = dockerfile.parse(ROOT / "Dockerfile.triton").arguments["TRITON_TAG"]
    assert tuple(map(int, tag.split("-")[0].split("."))) >= OLDEST_TRITON


def test_python_is_one_that_the_project_supports() -> None:
    tags = {path: dockerfile.parse(path).arguments.get("PYTHON_IMAGE", "3.12") for path in DOCKERFILES}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.13"
    assert all(re.search(r"3\.1[12]\b", tag) for tag in tags.values()), tags


def test_nobody_is_root(any_file: Dockerfile) -> None:
    assert any_file.image.all("USER") == ["1000:1000"]  # in figures: Kubernetes' runAsNonRoot reads no names


def test_no_shell_stands_between_a_signal_and_the_process(any_file: Dockerfile) -> None:
    program = any_file.image.argv("ENTRYPOINT")[0]
    assert program.startswith("/")
    assert Path(program).name not in {"sh", "bash", "env", "tini"}
    for each in any_file.image.instructions:
        if each.keyword == "CMD":
            assert each.argv
    assert any_file.image.health[0] == "/opt/venv/bin/python"


def test_labels(any_file: Dockerfile) -> None:
    labels = any_file.image.pairs("LABEL")
    keys = {key.removeprefix("org.opencontainers.image.") for key in labels}
    assert keys == {"title", "description", "licenses", "version", "revision"}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"VERSION={version}" in any_file.image.all("ARG")


def test_poetry_is_the_one_of_the_makefile(any_file: Dockerfile) -> None:
    poetry, mirror = (
        re.findall(rf"^{name}_VERSION := (.+)$", MAKEFILE, re.MULTILINE)[0] for name in ("POETRY", "MIRROR")
    )
    first = any_file.build.all("RUN")[0]
    assert first.endswith(f"poetry=={poetry} poetry-plugin-pypi-mirror=={mirror}")
    assert f"poetry=={'$(POETRY_VERSION)'} poetry-plugin-pypi-mirror=={'$(MIRROR_VERSION)'}" in MAKEFILE


def test_only_its_own_groups_are_installed(any_file: Dockerfile) -> None:
    names = {".api": "gateway", ".triton": "model,gpu", ".playground": "playground"}[any_file.path.suffix]
    installs = [run for run in any_file.build.all("RUN") if "poetry install" in run]
    assert len(installs) == 2
    assert all(f"install --only {names} " in run for run in installs)
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert set(names.split(",")) <= groups.keys()


def test_dependencies_are_a_layer_before_the_code(any_file: Dockerfile) -> None:
    steps = [f"{each.keyword} {each.value}" for each in any_file.build.instructions]
    lock, dependencies = steps.index("COPY pyproject.toml poetry.lock ./"), _find(steps, "--no-directory")
    code = next(at for at, step in enumerate(steps) if at > lock and step.startswith("COPY "))
    assert lock < dependencies < code


def _find(steps: list[str], part: str) -> int:
    return next(at for at, step in enumerate(steps) if part in step)


def test_what_is_copied_is_in_the_context(any_file: Dockerfile) -> None:
    sent = {str(path) for path in dockerfile.context()}
    copies = [value.split() for stage in any_file.stages for value in stage.all("COPY")]
    if any_file.path.suffix == ".triton" and not (ROOT / BUNDLED_CHECKPOINT).is_dir():
        pytest.skip(f"{BUNDLED_CHECKPOINT} is not in this checkout: the image cannot be built from it")
    for *sources, _ in copies:
        for source in sources if not sources[0].startswith("--from") else ():
            assert source in sent or any(path.startswith(f"{source}/") for path in sent), source


def test_the_bundled_model_is_what_the_image_serves_when_nothing_is_set() -> None:
    image = dockerfile.parse(ROOT / "Dockerfile.triton").image
    (copied,) = (value.split() for value in image.all("COPY") if value.startswith("models"))
    assert copied == [str(BUNDLED_CHECKPOINT), image.pairs("ENV")["MODEL_NAME"]]
    assert f"!{BUNDLED_CHECKPOINT}" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_the_context_holds_neither_tests_nor_secrets() -> None:
    sent = list(dockerfile.context())
    assert len(sent) > 50
    for path in sent:
        assert not {"tests", "__pycache__", ".git", ".venv"} & set(path.parts), path
        assert not path.name.startswith(".env"), path
        assert path.name != "settings.env"
