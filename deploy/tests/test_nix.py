"""The flake, evaluated whole. Its inputs cannot be fetched everywhere: small stand-ins take their place."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from stack import ROOT

STAND_INS = ROOT / "nix" / "tests"
SYSTEM = "x86_64-linux"
MEMBERS = {"gemma-wire", "gemma-model", "gemma-gateway", "gemma-launcher", "gemma-playground"}
PYPROJECTS = sorted([*ROOT.glob("packages/*/pyproject.toml"), ROOT / "playground" / "pyproject.toml"])
pytestmark = pytest.mark.skipif(
    shutil.which("nix") is None,
    reason="nix is not installed, so nobody has evaluated flake.nix; .ci/tools installs it",
)


class Flake:
    """A copy of what the flake reads, since a flake in a git checkout sees only what is committed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("flake.nix", "pyproject.toml", "poetry.lock"):
            shutil.copyfile(ROOT / name, folder / name)
        for name in ("nix", "model_repository"):
            shutil.copytree(ROOT / name, folder / name)
        for file in PYPROJECTS:
            (folder / file.relative_to(ROOT)).parent.mkdir(parents=True)
            shutil.copyfile(file, folder / file.relative_to(ROOT))

    def nix(self, *words: str) -> str:
        """What nix prints; an assertion fails with its complaint. Its store is a folder of the test."""
        inputs = ((name, f"path:{STAND_INS / name}") for name in ("nixpkgs", "pyproject-nix"))
        overrides = [part for name, url in inputs for part in ("--override-input", name, url)]
        features = ["--extra-experimental-features", "nix-command flakes"]
        store = ["--store", str(self.folder.parent / "store"), "--offline"]
        run = subprocess.run(
            ["nix", *features, *store, *words, "--no-write-lock-file", *overrides],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder.parent),
                "NIX_CONFIG": "sandbox = false\nbuild-users-group =",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def eval(self, attribute: str, function: str = "x: x") -> Any:
        return json.loads(self.nix("eval", "--json", f"path:{self.folder}#{attribute}", "--apply", function))


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Flake:
    folder = tmp_path_factory.mktemp("nix") / "flake"
    folder.mkdir()
    return Flake(folder)


def test_every_output_evaluates_to_a_derivation(flake: Flake) -> None:
    """Packages, checks, shells, apps and the formatter, on both systems."""
    flake.nix("flake", "check", "--no-build", f"path:{flake.folder}")


FACTS = """
builtins.mapAttrs (_: builtins.mapAttrs (_: p: {
  version = p.version or "";
  needs = map (d: { name = d.pname; version = d.version or ""; source = d.src.name or ""; })
    (p.dependencies or [ ]);
}))
"""


@pytest.fixture(scope="module")
def packages(flake: Flake) -> dict[str, dict[str, Any]]:
    """System → package → its version and what it needs."""
    return dict(flake.eval("packages", FACTS))


def test_outputs(flake: Flake, packages: dict[str, dict[str, Any]]) -> None:
    assert set(packages) == {"aarch64-linux", SYSTEM}
    assert all(set(each) == MEMBERS | {"default"} for each in packages.values())
    shown = json.loads(flake.nix("flake", "show", "--json", f"path:{flake.folder}"))
    assert set(shown["checks"][SYSTEM]) == MEMBERS | {"style"}
    assert set(shown["devShells"][SYSTEM]) == {"default", "cuda"}
    assert set(shown["formatter"]) == set(packages)


@pytest.mark.parametrize("member", sorted(MEMBERS))
def test_dependencies_are_those_of_pyproject_toml(packages: dict[str, dict[str, Any]], member: str) -> None:
    """But for the wheels that carry CUDA to torch, which nixpkgs' torch brings itself."""
    projects = (tomllib.loads(file.read_text(encoding="utf-8"))["project"] for file in PYPROJECTS)
    (project,) = (each for each in projects if each["name"] == member)
    wanted = {_name(text) for text in project["dependencies"]} - {"nvidia-cublas", "nvidia-cuda-nvrtc"}
    rendered = packages[SYSTEM][member]
    assert {each["name"].removesuffix("-bin") for each in rendered["needs"]} == wanted
    assert rendered["version"] == project["version"]


def _name(requirement: str) -> str:
    return requirement.replace(">", " ").replace("=", " ").replace("[", " ").replace("<", " ").split()[0]


@pytest.mark.parametrize(
    ("owner", "name"),
    [("gemma-wire", "numpy"), ("gemma-launcher", "nvidia-pytriton"), ("gemma-playground", "gradio")],
)
def test_wheels_are_those_of_the_lock(packages: dict[str, dict[str, Any]], owner: str, name: str) -> None:
    lock = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    (locked,) = (package["version"] for package in lock if package["name"] == name)
    for system, each in packages.items():
        (wheel,) = (need for need in each[owner]["needs"] if need["name"] == name)
        assert wheel["version"] == locked
        assert system.split("-")[0] in wheel["source"] or wheel["source"].endswith("-any")
        assert "cp312" in wheel["source"] or "py3" in wheel["source"]


def test_nothing_of_the_lists_is_written_by_hand() -> None:
    """No package is named in nix/ but where nixpkgs and the lock part ways."""
    named = {_name(text) for file in PYPROJECTS for text in _requirements(file)}
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "nix").glob("*.nix"))
    code = "\n".join(line.split("#")[0] for line in written.splitlines())
    exceptions = {"numpy", "nvidia-pytriton", "torch", "torchvision", "nvidia-cublas", "nvidia-cuda-nvrtc"}
    exceptions.add("gradio")
    assert {name for name in named if f'"{name}"' in code or f" {name} =" in code} == exceptions


def _requirements(file: Path) -> list[str]:
    return list(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"])


def test_apps(flake: Flake) -> None:
    apps = flake.eval(f"apps.{SYSTEM}")
    assert set(apps) == {"default", "serve", "playground"}
    assert all(app["type"] == "app" for app in apps.values())
    for name in ("serve", "playground"):
        assert apps[name]["program"].endswith(f"/bin/gemma-triton-{name}")


def test_the_command_finds_what_the_checkout_brings(flake: Flake) -> None:
    """It runs anywhere: the model repository is the flake's own, and so the bundled model beside it."""
    text = flake.eval(f"packages.{SYSTEM}.default", "p: p.text")
    assert re.search(r"GEMMA_MODEL_REPOSITORY:-/nix/store/[^/\s]+/model_repository}", text)


@pytest.fixture
def other(tmp_path: Path) -> Flake:
    """Another copy, to be changed."""
    (tmp_path / "flake").mkdir()
    return Flake(tmp_path / "flake")


def test_a_dependency_that_nixpkgs_lacks_is_named(other: Flake) -> None:
    file = other.folder / "packages" / "wire" / "pyproject.toml"
    file.write_text(
        file.read_text(encoding="utf-8").replace('"pydantic>', '"no-such-package",\n    "pydantic>')
    )
    with pytest.raises(AssertionError, match="no-such-package"):
        other.eval(f"packages.{SYSTEM}.gemma-wire", "p: p.drvPath")
