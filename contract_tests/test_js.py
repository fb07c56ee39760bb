"""The npm packages of OpenAI and Anthropic, and Vercel's AI SDK, run by node."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server import Server
from stack import ROOT

SOURCE = Path(__file__).parent / "js"
BUILD = ROOT / "build" / "contract-js"
SCRIPTS = ("client.mjs", "anthropic.mjs", "ai_sdk.mjs")
TRIALS = (
    "whole",
    "stream",
    "streamHelper",
    "abort",
    "parse",
    "toolRunner",
    "responses",
    "responsesParse",
    "completions",
    "transcription",
    "models",
    "errors",
    "message",
    "messageStream",
    "messageTools",
    "countTokens",
    "messageErrors",
    "aiSdkText",
    "aiSdkTools",
)


def _install() -> None:
    """Copy the sources into a folder that git ignores, and install what their lock names."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for file in SOURCE.iterdir():
        if file.is_file():
            shutil.copy(file, BUILD)
    run = subprocess.run(["npm", "ci"], cwd=BUILD, capture_output=True, text=True, timeout=300, check=False)
    if run.returncode:
        pytest.skip(f"NOT TESTED: npm could not install the packages: {run.stderr[-500:]}")


@pytest.fixture(scope="module")
def outcomes(server: Server) -> dict[str, Any]:
    """The outcome of each trial."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("NOT TESTED: the npm package needs node and npm (on Debian: apt install nodejs npm)")
    _install()
    variables = {
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_API_KEY": server.key,
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": server.key,
        "CONTRACT_MODEL": server.model,
    }
    said = [line for script in SCRIPTS for line in _run(script, variables).splitlines()]
    return {outcome["name"]: outcome for outcome in map(json.loads, said)}


def _run(script: str, variables: dict[str, str]) -> str:
    run = subprocess.run(
        ["node", script],
        cwd=BUILD,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trial", TRIALS)
def test_javascript_trial(outcomes: dict[str, Any], trial: str) -> None:
    assert outcomes[trial]["ok"], outcomes[trial]["error"]
