"""The complete flake is evaluated. Small stand-ins take the place of its inputs, which cannot be fetched."""

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
    """A copy of the files that the flake reads: in a git checkout, a flake sees only committed files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("flake.nix", "pyproject.toml", "poetry.lock"):
            shutil.copyfile(ROOT / name, folder / name)
        shutil.copytree(ROOT / "nix", folder / "nix")
        for file in PYPROJECTS:
            (folder / file.relative_to(ROOT)).parent.mkdir(parents=True)
            shutil.copyfile(file, folder / file.relative_to(ROOT))

    def nix(self, *words: str) -> str:
        """Run nix with a store in the test's folder and return its output. Its errors fail the test."""
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
    projects = (tomllib.loads(file.read_text(encoding="utf-8"))["project"] for file in PYPROJECTS)
    (project,) = (each for each in projects if each["name"] == member)
    rendered = packages[SYSTEM][member]
    assert {each["name"] for each in rendered["needs"]} == {_name(text) for text in project["dependencies"]}
    assert rendered["version"] == project["version"]


def _name(requirement: str) -> str:
    return requirement.replace(">", " ").replace("=", " ").replace("[", " ").replace("<", " ").split()[0]


CLOSURE = """
builtins.mapAttrs (_: packages: map ({ value, ... }: {
  name = value.pname;
  version = value.version or "";
  source = value.src.name or "";
}) (builtins.genericClosure {
  startSet = map (value: { key = value.pname; inherit value; }) (builtins.attrValues packages);
  operator = { value, ... }:
    map (value: { key = value.pname; inherit value; }) (value.dependencies or [ ]);
}))
"""


@pytest.fixture(scope="module")
def closure(flake: Flake) -> dict[str, list[dict[str, str]]]:
    """System → everything that the members need, at any depth."""
    return dict(flake.eval("packages", CLOSURE))


def test_every_package_is_a_wheel_of_the_lock(closure: dict[str, list[dict[str, str]]]) -> None:
    lock = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    # Python 3.12 gets the newest of several versions: none here excludes it.
    versions = {package["name"]: package["version"] for package in lock}
    nixpkgs = {"packaging", "setuptools"}
    for system, needed in closure.items():
        wheels = [each for each in needed if each["name"] not in MEMBERS | nixpkgs | {"gemma-triton"}]
        assert {"gradio", "numpy", "nvidia-pytriton", "torch"} < {wheel["name"] for wheel in wheels}
        for wheel in wheels:
            assert wheel["version"] == versions[wheel["name"]]
            assert _runs(wheel["source"], system), wheel


def _runs(wheel: str, system: str) -> bool:
    """Whether Python 3.12 can import the wheel on this system."""
    python, abi, platform = wheel.rsplit("-", 3)[1:]
    fits = "py3" in python.split(".") or python == "cp312" or (abi == "abi3" and int(python[3:]) <= 12)
    cpu = system.partition("-")[0]
    return fits and (platform == "any" or ("manylinux" in platform and cpu in platform))


def test_a_wheel_with_compiled_code_comes_first(closure: dict[str, list[dict[str, str]]]) -> None:
    """The wheel of soundfile for any platform has no libsndfile."""
    for needed in closure.values():
        (soundfile,) = (each for each in needed if each["name"] == "soundfile")
        assert "manylinux" in soundfile["source"]


def test_no_dependency_is_named_in_nix() -> None:
    named = {_name(text) for file in PYPROJECTS for text in _requirements(file)}
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "nix").glob("*.nix"))
    code = "\n".join(line.split("#")[0] for line in written.splitlines())
    assert not {name for name in named if f'"{name}"' in code or f" {name} =" in code}


def _requirements(file: Path) -> list[str]:
    return list(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"])


def test_apps(flake: Flake) -> None:
    apps = flake.eval(f"apps.{SYSTEM}")
    assert set(apps) == {"default", "serve", "playground"}
    assert all(app["type"] == "app" for app in apps.values())
    for name in ("serve", "playground"):
        assert apps[name]["program"].endswith(f"/bin/gemma-triton-{name}")


def test_the_command_finds_the_files_of_the_checkout(flake: Flake) -> None:
    """The model repository is the flake's own, so the command runs in any folder."""
    text = flake.eval(f"packages.{SYSTEM}.default", "p: p.text")
    assert re.search(
        r"GEMMA_MODEL_REPOSITORY:-/nix/store/[^/\s]+/packages/model/src/gemma_model/model_repository}", text
    )


@pytest.fixture
def other(tmp_path: Path) -> Flake:
    """A second copy, which a test may change."""
    (tmp_path / "flake").mkdir()
    return Flake(tmp_path / "flake")


def test_a_dependency_that_the_lock_lacks_is_named(other: Flake) -> None:
    file = other.folder / "packages" / "wire" / "pyproject.toml"
    file.write_text(
        file.read_text(encoding="utf-8").replace('"pydantic>', '"no-such-package",\n    "pydantic>')
    )
    with pytest.raises(AssertionError, match="no-such-package"):
        other.eval(f"packages.{SYSTEM}.gemma-wire", "p: p.drvPath")


def test_a_package_without_a_fitting_wheel_is_named(other: Flake) -> None:
    """A wheel for Python 3.13 and newer does not run on 3.12."""
    file = other.folder / "poetry.lock"
    lock = file.read_text(encoding="utf-8")
    assert "-cp36-abi3-manylinux" in lock
    file.write_text(lock.replace("-cp36-abi3-manylinux", "-cp313-abi3-manylinux"), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"no wheel of psutil for Python 3\.12 on x86_64-linux"):
        other.eval(f"packages.{SYSTEM}.gemma-launcher", "p: p.drvPath")
