"""Each CPU kernel compared with PyTorch's own operations; how kernels are compiled, and what can fail."""

import logging
import shutil
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gemma_model.cpu import kernels
from gemma_model.cpu.instruction_set import AVX2
from gemma_model.layers.mlp import gelu
from gemma_model.models.gemma3n.sparse_mlp import SparseMLP
from gemma_model.weights.weight import DenseWeight

pytestmark = pytest.mark.usefixtures("cpu_kernels")
ops = kernels.ops


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(ours: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Equal up to fp32's rounding, or to one rounding to bf16."""
    rough = ours.dtype == torch.bfloat16
    torch.testing.assert_close(
        ours.float(), expected.float(), rtol=1e-2 if rough else tolerance, atol=2 * tolerance
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 16, 64, 65, 300])
@pytest.mark.parametrize(
    ("columns", "depth"), [(1, 16), (6, 32), (49, 64), (1000, 256), (33, 24), (5, 20), (50, 1072)]
)
def test_a_matrix_product_equals_pytorch(dtype: torch.dtype, rows: int, columns: int, depth: int) -> None:
    x, w = random(rows, depth, dtype=dtype), random(columns, depth, seed=1, dtype=dtype)
    ours, exact = ops.linear(x, w), F.linear(x.double(), w.double())
    assert ours.dtype == dtype
    torch.testing.assert_close(
        ours.double(), exact, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("depth", [24, 48, 96, 1072])  # less than what meets at once, and more
@pytest.mark.parametrize("rows", [2, 3, 5, 7, 8, 9, 16, 31, 70, 128, 129, 200])
def test_a_row_of_a_product_does_not_depend_on_the_others(dtype: torch.dtype, rows: int, depth: int) -> None:
    x, w = random(rows, depth, dtype=dtype), random(101, depth, seed=1, dtype=dtype)
    together = ops.linear(x, w)
    assert torch.equal(together, torch.cat([ops.linear(row.unsqueeze(0), w) for row in x]))


@pytest.mark.parametrize("layout", ["rows of a longer matrix", "transposed"])
@pytest.mark.parametrize("rows", [3, 130])
def test_a_product_with_a_part_of_a_matrix(rows: int, layout: str) -> None:
    part = {"rows of a longer matrix": random(40, 96)[:, :48], "transposed": random(48, 40).t()}[layout]
    x = random(rows, 48, seed=1)
    close(ops.linear(x, part), F.linear(x.double(), part.double()).float())


@pytest.mark.parametrize("cap", [0.0, 30.0])
@pytest.mark.parametrize("rows", [3, 64, 65, 75, 200])
def test_logits_are_fp32_and_softly_capped(cap: float, rows: int) -> None:
    x, w = random(rows, 64, dtype=torch.bfloat16), random(101, 64, seed=1, dtype=torch.bfloat16)
    raw = F.linear(x.float(), w.float())
    close(ops.logits(x, w, cap), torch.tanh(raw / cap) * cap if cap else raw)


def test_the_cap_holds_however_far_a_logit_goes() -> None:
    raw = torch.cat((torch.linspace(-200, 200, 4001), torch.tensor([-1e30, -1e4, 0.0, 1e4, 1e30])))
    x, w = torch.eye(1, 16), F.pad(raw.unsqueeze(1), (0, 15))
    exact = (torch.tanh(raw.double() / 30) * 30).float()
    torch.testing.assert_close(ops.logits(x, w, 30.0)[0], exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms(dtype: torch.dtype) -> None:
    x, y, w = (random(5, 64, seed=seed, dtype=dtype) for seed in range(3))
    weight = w[0]
    normed = F.rms_norm(y.float(), (64,), weight.float(), 1e-6)
    close(ops.rms_norm(y, weight, 1e-6), normed)
    close(ops.add_norm(x, y, weight, 1e-6), x.float() + normed)


@pytest.mark.parametrize("deviations", [float("nan"), 1.6449])
def test_the_gates(deviations: float) -> None:
    gate_up = random(3, 2 * 128)
    gate, up = gate_up.chunk(2, dim=-1)
    if deviations == deviations:  # noqa: PLR0124 - not NaN
        spread, mean = torch.std_mean(gate, dim=-1, keepdim=True, correction=0)
        gate = torch.relu(gate - (mean + spread * deviations))
    close(ops.gated_gelu(gate_up, deviations), gelu(gate) * up)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_a_sparse_layer_reads_few_neurons_and_computes_the_same(rows: int, dtype: torch.dtype) -> None:
    gate_up, down = random(2, 256, 64, seed=1, dtype=dtype), random(256, 64, seed=2, dtype=dtype)
    x = random(rows, 64, dtype=dtype)
    exact = SparseMLP(
        (DenseWeight(gate_up.flatten(0, 1).double()),), DenseWeight(down.double().t()), sparsity=0.95
    )(x.double())
    ours = ops.sparse_mlp(x, gate_up[0], gate_up[1], down, NormalDist().inv_cdf(0.95))
    torch.testing.assert_close(
        ours.double(), exact, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-3
    )


@pytest.mark.parametrize(
    ("compiler", "says"),
    [("", "no C++ compiler"), ("false", "not usable"), ("no-such-compiler", "not usable")],
)
def test_without_a_compiler_a_warning_is_logged(
    compiler: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("PATH", "" if not compiler else "/usr/bin:/bin")
    monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    with caplog.at_level(logging.INFO):
        assert not kernels.load.__wrapped__()
    assert says in caplog.text
    assert not list(tmp_path.glob("*.so"))


def test_the_linkers_reason_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "compiler"
    lines = ("ld: final link failed: No space left on device", "collect2: error: ld returned 1 exit status")
    compiler.write_text("#!/bin/sh\n" + "".join(f"echo '{line}' >&2\n" for line in lines) + "exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(kernels, "FOLDER", tmp_path / "kernels")
    with caplog.at_level(logging.INFO):
        assert not kernels.load.__wrapped__()
    assert "No space left on device" in caplog.text


def test_compiled_kernels_are_reused_only_with_the_same_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_(command: tuple[str, ...], **_rest: object) -> None:
        commands.append(command)
        Path(command[command.index("-o") + 1]).touch()

    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    monkeypatch.setattr("subprocess.run", compile_)
    first = kernels._build("a", AVX2)
    assert kernels._build("a", AVX2) == first
    assert len(commands) == 1
    assert kernels._build("b", AVX2) != first
    assert len(commands) == 2


def test_a_changed_header_is_recompiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(kernels.SOURCE.parent, tmp_path / "cpu")
    monkeypatch.setattr(kernels, "SOURCE", tmp_path / "cpu" / kernels.SOURCE.name)
    digests = {kernels._digest("a", ())}
    headers = sorted((tmp_path / "cpu").rglob("*.h"))
    for header in headers:
        header.write_text(header.read_text() + "// changed\n")
        digests.add(kernels._digest("a", ()))
    assert len(digests) == 1 + len(headers) > 10
