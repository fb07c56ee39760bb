"""The README's own commands, as written, but for the ports."""

import json
import re
import subprocess
import sys

import pytest

from stack import ROOT, Stack

README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    fences = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in fences]


CURLS = [block for block in _blocks("bash") if block.startswith("curl")]


def _on(stack: Stack, command: str) -> str:
    ports = {"localhost:8080": stack.api_port, "localhost:8000": stack.triton_http_port}
    for written, port in ports.items():
        command = command.replace(written, f"127.0.0.1:{port}")
    return command


def test_all_of_the_curl_calls_were_found() -> None:
    assert len(CURLS) == 6
    assert {"make serve", "make test"} <= {block.strip() for block in _blocks("bash")}


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
    (block,) = _blocks("python")
    run = subprocess.run(
        [sys.executable, "-c", _on(stack, block)], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
