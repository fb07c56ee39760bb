"""``gemma-triton quantize``, as a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path


def quantize(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gemma_launcher", "quantize", *arguments]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)


def test_a_copy_is_written(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    done = quantize(str(tiny), str(target), "--format=int4", "--per-layer-table=none")
    assert done.returncode == 0, done.stderr
    assert "q_proj" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"wrote {target}: ")
    assert "100 %" in done.stderr
    groups = json.loads((target / "config.json").read_text())["quantization_config"]["config_groups"]
    assert [group["weights"]["num_bits"] for group in groups.values()] == [4, 8]
    assert not any("embed_tokens_per_layer" in target for target in groups["group_1"]["targets"])
    again = quantize(str(tiny), str(target), "--format=int4")
    assert again.returncode == 1
    assert again.stderr == f"error: TARGET: {target} exists and is not an empty folder\n"


def test_a_missing_source(tmp_path: Path) -> None:
    done = quantize(str(tmp_path / "nothing"), str(tmp_path / "copy"), "--format=int8")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the checkpoint ")
    assert done.stderr.endswith("cannot be served: there is no such folder\n")
