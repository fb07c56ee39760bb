"""The C++ kernels on emulated 64-bit ARM processors, compared with those of this machine."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gemma_model.cpu.instruction_set import NEON, NEON_DOTPROD, NEON_I8MM
from gemma_model.cpu.kernels import NO_SPARSITY, ops
from gemma_model.layers.attention_metadata import Batch
from gemma_model.models.gemma3n import cpu_layers
from gemma_model.weights.packed_weight import PackedColumns, PackedWeight

from ..models.gemma3n.test_cpu_layers import cache_of, step, weights_of
from ..weights.quantized import Bits
from ..weights.test_packed_weight import CASES, Case, rounded
from .arm.emulated_kernels import PACKAGES, EmulatedKernels, build, missing_tools, run
from .test_kernels import close, random

pytestmark = [
    pytest.mark.usefixtures("cpu_kernels"),
    pytest.mark.xdist_group("arm"),
    pytest.mark.timeout(900),  # the compiler's, on a busy machine
    pytest.mark.skipif(
        bool(missing_tools()), reason=f"{' and '.join(missing_tools())} not found: install {PACKAGES}"
    ),
]
CPUS = {"max": NEON_I8MM, "cortex-a76": NEON_DOTPROD, "cortex-a72": NEON}
ZSCORE = 1.6449
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="session")
def program_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The program for a processor, compiled once."""
    return cache(lambda cpu: build(CPUS[cpu], tmp_path_factory.mktemp("arm")))


@pytest.fixture(scope="module", params=CPUS)
def arm(request: pytest.FixtureRequest, program_of: Callable[[str], Path]) -> Iterator[Any]:
    """The kernels on a processor."""
    if request.param != "max" and not os.environ.get("CI"):
        pytest.skip("half a minute of compiling: set CI=1 to run it")
    with run(program_of(request.param), request.param) as kernels:
        yield kernels


def parts_of(case: Case, out: int, width: int) -> tuple[Tensor, Tensor, Tensor | None, int]:
    matrix = case.matrix(out, width)
    offsets = None if matrix.offsets is None else matrix.offsets.float()
    return matrix.quants, matrix.scales.float(), offsets, matrix.bits


@pytest.mark.parametrize("name", CASES)
def test_packed_matrices_and_their_products_are_bit_for_bit_those_of_x86(
    arm: EmulatedKernels, name: str
) -> None:
    case = CASES[name]
    parts, ids = parts_of(case, 96, 256), torch.tensor([95, 0, 7, 7, 8, 33])
    packed = PackedWeight.pack(case.matrix(96, 256), torch.float32).operand
    assert torch.equal(arm.pack_matrix(*parts, case.expected.row_bytes * 8), packed)
    assert torch.equal(arm.packed_rows(packed, ids), ops.packed_rows(packed, ids))
    for rows in (1, 2, 3, 4, 5, 70):
        x = random(rows, 256)
        assert torch.equal(arm.linear(x, packed), ops.linear(x, packed))
        assert torch.equal(arm.linear(x.bfloat16(), packed), ops.linear(x.bfloat16(), packed))


@pytest.mark.parametrize("name", CASES)
def test_packed_columns(arm: EmulatedKernels, name: str) -> None:
    case, hidden, size = CASES[name], 64, 512
    parts, down = parts_of(case, hidden, size), PackedColumns.pack(case.matrix(hidden, size), torch.float32)
    assert torch.equal(arm.pack_columns(*parts, case.expected.row_bytes), down.operand)
    gates = random(5, size)
    close(arm.columns_linear(gates, down.operand, hidden), down.matmul(gates), tolerance=1e-4)
    gate_up = PackedWeight.pack(case.matrix(2 * size, hidden), torch.float32)
    gate, up = gate_up.row_range(0, size).operand, gate_up.row_range(size, 2 * size).operand
    x = rounded(random(5, hidden))
    ours, expected = (each.sparse_mlp(x, gate, up, down.operand, ZSCORE) for each in (arm, ops))
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert torch.equal(arm.sparse_mlp(x[-1:], gate, up, down.operand, ZSCORE)[0], ours[-1])


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 0.0, 1e-38, 1e36])
def test_an_extreme_input_of_a_packed_matrix(arm: EmulatedKernels, value: float) -> None:
    packed = PackedWeight.pack(CASES["Q4_0"].matrix(32, 256), torch.float32).operand
    x = random(3, 256)
    x[1, 9] = value
    torch.testing.assert_close(arm.linear(x, packed), ops.linear(x, packed), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("columns", "depth"), [(1, 16), (49, 64), (101, 24), (5, 20), (50, 1072)])
def test_a_matrix_product(arm: EmulatedKernels, dtype: torch.dtype, columns: int, depth: int) -> None:
    w = random(columns, depth, seed=1, dtype=dtype)
    for rows in (1, 2, 3, 5, 9, 70):
        x = random(rows, depth, dtype=dtype)
        ours, exact = arm.linear(x, w), F.linear(x.double(), w.double())
        rough = dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), exact, rtol=1e-2 if rough else 1e-4, atol=1e-4)
        assert torch.equal(ours[-1:], arm.linear(x[-1:], w))


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_else(arm: EmulatedKernels, dtype: torch.dtype) -> None:
    x, y, w = (random(5, 64, seed=seed, dtype=dtype) for seed in range(3))
    matrix = random(101, 64, seed=3, dtype=dtype)
    neurons = random(3, 256, 64, seed=1, dtype=dtype)
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("rms_norm", (y, w[0], 1e-6)),
        ("add_norm", (x, y, w[0], 1e-6)),
        ("logits", (x, matrix, 30.0)),
        ("logits", (x * 100, matrix, 30.0)),
        ("logits", (x, matrix, 0.0)),
        ("gated_gelu", (random(3, 256, dtype=dtype) * 50, NO_SPARSITY)),
        ("gated_gelu", (random(3, 256, dtype=dtype), ZSCORE)),
        ("sparse_mlp", (x, *neurons, ZSCORE)),
    ]
    for name, arguments in calls:
        close(getattr(arm, name)(*arguments), getattr(ops, name)(*arguments), tolerance=1e-4)


@pytest.mark.parametrize("value", [1.0, torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", DTYPES)
def test_infinity_and_nan_are_found(arm: EmulatedKernels, value: float, dtype: torch.dtype) -> None:
    x = random(1000, dtype=dtype)
    x[777] = value
    assert arm.is_finite(x).item() == (value == 1.0)
    stored = arm.rms_norm(x[:992].view(1, -1), x[:992], 1e-6)
    assert stored.isfinite().all().item() == (value == 1.0)


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("model", ["as published"], indirect=True)
def test_the_fused_layers(
    arm: EmulatedKernels, model: Any, bits: Bits | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt and a step after it, whose logits depend on what the layers wrote into the cache."""
    results = []
    for kernels in (ops, arm):
        monkeypatch.setattr(cpu_layers, "ops", kernels)
        decoder, cache = weights_of(model, torch.float32, True, bits), cache_of(model, torch.float32)
        ids = list(range(5, 45))
        logits = [decoder.prefill(ids, decoder.embed(ids), [Batch([2], [0], 40)], cache, 1)]
        logits.append(step(decoder, cache, [2, 0, 3], [40, 7, 60], [9, 8, 7]))
        results.append(logits)
    for ours, expected in zip(*reversed(results), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4 if bits is None else 0.02)
