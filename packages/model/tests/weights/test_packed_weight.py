"""Packed matrices of the C++ kernels compared with the dequantised matrices."""

from dataclasses import dataclass, replace
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from gemma_model.cpu.kernels import ops
from gemma_model.models.gemma3n.sparse_mlp import SparseMLP
from gemma_model.weights.packed_weight import (
    INT4,
    INT4_OFFSETS,
    INT4_OFFSETS_FP32,
    INT8,
    INT8_GROUPS_16,
    INT8_OFFSETS_FP32,
    PackedColumns,
    PackedFormat,
    PackedWeight,
    can_pack,
    format_of,
)
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.weight import DenseWeight
from gemma_wire import InvalidRequest

from .quantized import Bits, random_matrix

pytestmark = pytest.mark.usefixtures("cpu_kernels")
BLOCK = 32


@dataclass(frozen=True)
class Case:
    """A kind of matrix, and the format that represents it."""

    bits: Bits
    group_size: int
    offsets: bool
    scale_dtype: torch.dtype
    expected: PackedFormat
    factor: float = 1.0

    def matrix(self, out: int, width: int, seed: int = 0) -> QuantizedTensor:
        """A matrix of this kind."""
        group = min(self.group_size, width)
        made = random_matrix(
            out, width, self.bits, group, offsets=self.offsets, scale_dtype=self.scale_dtype, seed=seed
        )
        return replace(made, scales=made.scales * self.factor)

    def packed_matrix(self, out: int, width: int, seed: int = 0) -> QuantizedTensor:
        """The same with the scales and offsets that the format has."""
        made = self.matrix(out, width, seed)
        if self.expected not in (INT4_OFFSETS, INT8_GROUPS_16):
            return made
        offsets = None if made.offsets is None else made.offsets.half().float()
        return replace(made, scales=made.scales.half(), offsets=offsets)


CASES = {
    "Q4_0": Case(4, 32, False, torch.float16, INT4),
    "Q8_0": Case(8, 32, False, torch.float16, INT8),
    "int4, groups of 128": Case(4, 128, False, torch.float16, INT4),
    "int8, channels": Case(8, 256, False, torch.bfloat16, INT8),
    "Q4_1": Case(4, 32, True, torch.float16, INT4_OFFSETS),
    "Q4_K": Case(4, 32, True, torch.float32, INT4_OFFSETS),
    "Q4_K, small": Case(4, 32, True, torch.float32, INT4_OFFSETS_FP32, 2.0**-20),
    "Q6_K": Case(8, 16, False, torch.float32, INT8_GROUPS_16),
    "Q6_K, small": Case(8, 16, False, torch.float32, INT8_OFFSETS_FP32, 2.0**-20),
    "Q5_K": Case(8, 32, True, torch.float32, INT8_OFFSETS_FP32),
    "int4, groups of 16": Case(4, 16, False, torch.float16, INT8_GROUPS_16),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def random(*shape: int, seed: int = 9) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(x: Tensor) -> Tensor:
    """What the kernels make of an input: int8 in blocks with one scale each."""
    blocks = x.view(len(x), -1, BLOCK)
    most = blocks.abs().amax(-1, keepdim=True)
    integers = torch.where(most > 0, blocks * (127 / most), torch.zeros(())).round()
    return (integers * (most / 127)).flatten(1)


def test_the_smallest_format_that_represents_it_is_used(case: Case) -> None:
    assert format_of(case.matrix(64, 256)) == case.expected


def test_a_matrix_takes_the_memory_of_its_format(case: Case) -> None:
    packed = PackedWeight.pack(case.matrix(64, 256), torch.float32)
    assert packed.nbytes == packed.operand.nbytes == 64 * 256 // 32 * case.expected.row_bytes
    assert packed.shape == (64, 256)


def test_a_bfloat16_scale_that_fp16_cannot_represent_keeps_its_value() -> None:
    matrix = random_matrix(32, 64, 8, scale_dtype=torch.bfloat16)
    matrix.scales[0, 0] = 2.0**-30
    assert format_of(matrix) == INT8_OFFSETS_FP32
    packed = PackedWeight.pack(matrix, torch.float32)
    assert torch.equal(packed.rows(torch.arange(32)), matrix.dequantize())


def test_rows_equal_those_of_the_matrix(case: Case) -> None:
    ids = torch.tensor([95, 0, 7, 7, 8, 33])
    rows = PackedWeight.pack(case.matrix(96, 256), torch.float32).rows(ids)
    assert torch.equal(rows, case.packed_matrix(96, 256).dequantize()[ids])
    torch.testing.assert_close(rows, case.matrix(96, 256).dequantize()[ids], rtol=2.0**-10, atol=2.0**-11)


def test_a_row_that_does_not_exist_is_an_error() -> None:
    packed = PackedWeight.pack(random_matrix(32, 32, 4), torch.float32)
    for wrong in (32, -1):
        with pytest.raises(RuntimeError, match="of 32"):
            packed.rows(torch.tensor([wrong]))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 70])
@pytest.mark.parametrize(("out", "width"), [(96, 256), (32, 32 * 8), (1024, 512)])
def test_a_product_equals_that_of_the_rounded_input(case: Case, rows: int, out: int, width: int) -> None:
    x = random(rows, width)
    x[0, :BLOCK] = 0
    ours = PackedWeight.pack(case.matrix(out, width), torch.float32).matmul(x)
    exact = rounded(x).double() @ case.packed_matrix(out, width).dequantize().double().T
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))


def test_the_error_of_a_product_is_at_most_that_of_rounding_the_input(case: Case) -> None:
    """Rounding changes an element by at most half a step, a product by the sum of |weight| x half a step."""
    matrix, x = case.packed_matrix(64, 256), random(20, 256) * 10
    dense = matrix.dequantize().double()
    half_steps = x.view(20, -1, BLOCK).abs().amax(-1).double() / 127 / 2
    bound = half_steps.repeat_interleave(BLOCK, dim=1) @ dense.abs().T
    error = (PackedWeight.pack(matrix, torch.float32).matmul(x).double() - x.double() @ dense.T).abs()
    assert (error <= bound * (1 + 1e-4)).all()
    assert error.max() > bound.max() / 1000, "the bound is not of another magnitude"


def test_a_row_of_a_product_is_bit_for_bit_the_same_as_alone(case: Case) -> None:
    packed, x = PackedWeight.pack(case.matrix(96, 256), torch.bfloat16), random(71, 256).bfloat16()
    together = packed.matmul(x)
    assert together.dtype == torch.bfloat16
    assert all(torch.equal(packed.matmul(x[i : i + 1])[0], together[i]) for i in range(len(x)))


@pytest.mark.parametrize("value", [0.0, 1e-29, 1e-38, 1e36, 127.0])
def test_extreme_inputs(case: Case, value: float) -> None:
    packed, x = PackedWeight.pack(case.matrix(32, 256), torch.float32), torch.full((2, 256), value)
    exact = x.double() @ packed.rows(torch.arange(32)).double().T
    scale = float(exact.abs().max())
    torch.testing.assert_close(packed.matmul(x).double(), exact, rtol=1e-4, atol=max(1e-4 * scale, 1e-35))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_an_input_that_is_not_finite_is_seen_in_the_result(case: Case, value: float) -> None:
    x = random(3, 256)
    for column in range(0, 256, 9):
        x[1] = 1.0
        x[1, column] = value
        ours = PackedWeight.pack(case.matrix(32, 256), torch.float32).matmul(x)
        assert ours[1].isnan().all()
        assert ours[[0, 2]].isfinite().all()


def test_rows_and_columns_of_a_nested_model_are_views(case: Case) -> None:
    packed, x = PackedWeight.pack(case.matrix(96, 256), torch.float32), random(3, 256)
    rows = packed.row_range(32, 64)
    assert torch.equal(rows.matmul(x), packed.matmul(x)[:, 32:64])
    columns = packed.first_columns(128)
    zeros = torch.cat((x[:, :128], torch.zeros(3, 128)), dim=1)
    torch.testing.assert_close(columns.matmul(x[:, :128]), packed.matmul(zeros))
    for part in (rows, columns):
        assert part.operand.untyped_storage().data_ptr() == packed.operand.untyped_storage().data_ptr()


def test_a_nested_model_cannot_cut_a_block() -> None:
    packed = PackedWeight.pack(random_matrix(64, 64, 4), torch.float32)
    with pytest.raises(InvalidRequest, match="block size"):
        packed.row_range(0, 12)
    with pytest.raises(InvalidRequest, match="block size"):
        packed.first_columns(48)


@pytest.mark.parametrize(("out", "width", "group"), [(40, 64, 32), (64, 48, 16), (64, 64, 8)])
def test_incomplete_blocks_cannot_be_packed(out: int, width: int, group: int) -> None:
    assert not can_pack(random_matrix(out, width, 8, group))


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("share", [1.0, 0.5], ids=["complete", "nested"])
def test_a_sparse_mlp_reads_the_columns_of_open_gates(case: Case, rows: int, share: float) -> None:
    hidden, size = 64, 512
    gate_up, down = case.packed_matrix(2 * size, hidden, seed=1), case.packed_matrix(hidden, size, seed=2)
    x, kept = rounded(random(rows, hidden)), int(size * share)
    dense = gate_up.dequantize().view(2, size, hidden)[:, :kept].flatten(0, 1)
    expected = SparseMLP((DenseWeight(dense),), DenseWeight(down.dequantize()[:, :kept]), 0.95)(x)
    packed = PackedWeight.pack(gate_up, torch.float32)
    gate, up = packed.row_range(0, kept), packed.row_range(size, size + kept)
    columns = PackedColumns.pack(down, torch.float32).first_columns(kept)
    zscore = NormalDist().inv_cdf(0.95)
    ours = ops.sparse_mlp(x, gate.operand, up.operand, columns.operand, zscore)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    gates = random(rows, kept)
    exact = gates.double() @ down.dequantize()[:, :kept].double().T
    torch.testing.assert_close(
        columns.matmul(gates).double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max())
    )
    alone = ops.sparse_mlp(x[-1:], gate.operand, up.operand, columns.operand, zscore)
    assert torch.equal(alone[0], ours[-1])
