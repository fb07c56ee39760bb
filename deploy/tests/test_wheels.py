"""The packages as wheels: what they depend on, and the commands in an installation outside a checkout."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stack import ROOT

PACKAGES = [ROOT / "packages" / name for name in ("wire", "model", "gateway", "launcher")] + [
    ROOT / "playground"
]
BUILDER = ROOT / ".tools" / "poetry" / "bin" / "python"
BUILD = """
import os, sys
from poetry.core.masonry.api import build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
"""
PROVIDED = {
    "triton_python_backend_utils",  # by Triton, to its stub
    "humming",  # by the dependency group gpu
    "gguf",  # by the dependency group dev, for the module testing
    "pydantic_core",  # by pydantic, which requires one version of it
}


def requirements(package: Path) -> list[Requirement]:
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(text) for text in project["dependencies"]]


def imported(package: Path) -> set[str]:
    """The top-level modules that a package imports."""
    names: set[str] = set()
    for file in (package / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add((node.module or "").partition(".")[0])
    return names - set(sys.stdlib_module_names) - PROVIDED


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_dependency_is_declared_with_its_versions(package: Path) -> None:
    declared = requirements(package)
    assert all(requirement.specifier for requirement in declared)
    names = {canonicalize_name(requirement.name) for requirement in declared}
    own = next((package / "src").glob("gemma_*")).name
    providers = packages_distributions()
    providing = {module: providers.get(module, [module]) for module in imported(package) - {own}}
    missing = {
        module
        for module, found in providing.items()
        if not names & {canonicalize_name(name) for name in found}
    }
    assert missing == set()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All packages, installed from wheels; their dependencies are those of the test environment."""
    if not BUILDER.is_file():
        pytest.skip("Poetry is not in .tools, where `make install` puts it")
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    subprocess.run([BUILDER, "-c", BUILD, wheels, *PACKAGES], check=True)
    files = [*wheels.glob("*.whl")]
    assert len(files) == len(PACKAGES)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, "--target", target, *files], check=True, capture_output=True)
    (target / "torch.py").write_text("__version__ = '0'")  # the real one takes seconds to import
    return target


def run(installed: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs ``gemma-triton`` of the wheels in a folder outside the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GEMMA_", "MODEL_"))}
    environment = kept | {"PYTHONPATH": str(installed), "HOME": str(folder), "XDG_CACHE_HOME": ""}
    command = [sys.executable, "-m", "gemma_launcher", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_and_plan(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "quantize" in done.stdout
    done = run(installed, tmp_path, "plan", "--memory", "24GiB", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["fits"] is True


def test_doctor_finds_the_model_repository_and_misses_the_demo(installed: Path, tmp_path: Path) -> None:
    kinds = ("", "playground-", "triton-http-", "triton-grpc-", "triton-metrics-")
    ports = [part for kind in kinds for part in (f"--{kind}port", "0")]
    done = run(installed, tmp_path, "doctor", "--json", *ports)
    report: dict[str, Any] = json.loads(done.stdout)
    checks = {check["subject"]: check for check in report["checks"]}
    assert done.returncode == 0, done.stdout
    assert checks["repository"]["text"] == str((installed / "gemma_model" / "model_repository").resolve())
    assert (
        "the tiny checkpoint with random weights; The demo model is part of a checkout"
        in checks["model"]["text"]
    )
    assert (installed / "gemma_model" / "model_repository" / "gemma3n" / "1" / "model.py").is_file()
