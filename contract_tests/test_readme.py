"""The commands of the README, with other ports."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stack import ROOT, Stack

README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    fences = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in fences]


CURLS = [block for block in _blocks("bash") if block.startswith("curl")]
(EXAMPLE,) = _blocks("python")
(IN_THE_TERMINAL,) = (block for block in _blocks("bash") if block.startswith("gemma-triton"))
RUN = (*CURLS, EXAMPLE, IN_THE_TERMINAL)
"""The blocks that are run here, with other ports, and with limits for what takes long."""


def _on(stack: Stack, command: str) -> str:
    ports = {"localhost:8080": stack.api_port, "localhost:8000": stack.triton_http_port}
    for written, port in ports.items():
        command = command.replace(written, f"127.0.0.1:{port}")
    return command


def test_all_curl_calls_are_found() -> None:
    assert len(CURLS) == 6


@pytest.mark.parametrize("block", CURLS)
def test_curl(stack: Stack, block: str) -> None:
    run = subprocess.run(
        ["bash", "-euc", _on(stack, block).replace("curl ", "curl --fail-with-body -sS ")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    if "chat/completions" in block and '"stream"' not in block:
        answer = json.loads(run.stdout)
        assert answer["choices"][0]["message"]["content"]
    if '"stream": true,' in block:
        assert run.stdout.strip().endswith("data: [DONE]")


def test_the_python_example(stack: Stack) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _on(stack, EXAMPLE)], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


LESS = {
    "chat": "--max-tokens 4",
    "bench": "--requests 2 --prompt-tokens 12 --max-tokens 2",
    "<(gemma-triton": "\ncomplete -p gemma-triton",  # prints what the line has set
}


@pytest.mark.parametrize("line", IN_THE_TERMINAL.splitlines())
def test_in_the_terminal(stack: Stack, line: str) -> None:
    command = line.split("  ", maxsplit=1)[0]
    run = subprocess.run(
        ["bash", "-euc", f"{command} {LESS.get(command.split()[1], '')}"],
        env={
            **os.environ,
            "API_PORT": str(stack.api_port),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        input="Hello, how are you?\n",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.strip()
