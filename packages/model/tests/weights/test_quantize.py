import pytest
import torch
from torch import Tensor

from gemma_model.weights.quantization_recipe import Bits
from gemma_model.weights.quantize import (
    CANDIDATES,
    FP16_HAS_ALL_BF16,
    GROUP_SIZE,
    best_scales,
    can_quantize,
    quantize,
)

BITS: tuple[Bits, ...] = (4, 8)


def normal(rows: int, width: int, factor: float = 1.0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)) * factor


def error(matrix: Tensor, restored: Tensor) -> float:
    return float((restored - matrix.float()).norm() / matrix.float().norm())


def squared_error(group: Tensor, bits: int, scale: Tensor) -> float:
    """Of a group, with one scale."""
    limit = 1 << (bits - 1)
    integers = (group / scale).round().clamp(-limit, limit - 1)
    return float((group - scale * integers).square().sum())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_matrix_survives(bits: Bits, dtype: torch.dtype) -> None:
    matrix = normal(300, 96).to(dtype)
    quantized = quantize(matrix, bits)
    assert quantized.shape == (300, 96)
    assert (quantized.group_size, quantized.bits, quantized.offsets) == (GROUP_SIZE, bits, None)
    # Rounding to steps of s has a relative RMS error of about s / sqrt(12); s is about max / 2^(bits - 1).
    assert error(matrix, quantized.dequantize()) < {4: 0.085, 8: 0.0055}[bits]


@pytest.mark.parametrize("bits", BITS)
def test_no_candidate_alone_is_better(bits: Bits) -> None:
    groups = normal(200, GROUP_SIZE)
    found = sum(map(squared_error, groups, [bits] * 200, best_scales(groups, bits)))
    for candidate in CANDIDATES[bits]:
        scales = groups.gather(1, groups.abs().argmax(1, keepdim=True)) / candidate
        assert found < sum(map(squared_error, groups, [bits] * 200, scales))


def test_the_search_is_worth_it() -> None:
    matrix = normal(256, 1024)
    groups = matrix.view(256, -1, GROUP_SIZE)
    plain = (groups.abs().amax(-1) / 7).unsqueeze(-1)
    plain_error = error(matrix, ((groups / plain).round().clamp(-8, 7) * plain).view(256, -1))
    assert error(matrix, quantize(matrix, 4).dequantize()) < 0.86 * plain_error


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e-6, 1e-9, 0.0, 1e4])
def test_scales_are_exact_in_fp16_and_bf16(bits: Bits, factor: float) -> None:
    quantized = quantize(normal(64, 64, factor), bits)
    assert quantized.scales.dtype is torch.bfloat16
    scales = quantized.scales.float()
    assert torch.equal(scales.half().float(), scales)
    assert scales.abs().min() > 0


@pytest.mark.parametrize("bits", BITS)
def test_small_numbers_lose_at_most_half_a_step_of_fp16(bits: Bits) -> None:
    matrix = normal(64, 64, FP16_HAS_ALL_BF16)
    largest = float(quantize(matrix, bits).scales.float().abs().max())
    difference = quantize(matrix, bits).dequantize() - matrix
    assert difference.abs().max() <= largest  # at most half a step, and as much again where it is clamped


@pytest.mark.parametrize("bits", BITS)
def test_numbers_that_fit_are_exact(bits: Bits) -> None:
    limit = 1 << (bits - 1)
    integers = torch.randint(-limit, limit, (16, 64), generator=torch.Generator().manual_seed(1)).float()
    integers[:, ::GROUP_SIZE] = -limit
    assert torch.equal(quantize(integers * 0.25, bits).dequantize(), integers * 0.25)
    assert torch.equal(quantize(torch.zeros(2, 64), bits).dequantize(), torch.zeros(2, 64))


@pytest.mark.parametrize("bits", BITS)
def test_rows_are_independent(bits: Bits) -> None:
    matrix = normal(40, 64)
    assert torch.equal(quantize(matrix, bits).dequantize()[7:9], quantize(matrix[7:9], bits).dequantize())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_shows_in_the_scale(bits: Bits, value: float) -> None:
    matrix = normal(2, 64)
    matrix[1, 3] = value
    scales = quantize(matrix, bits).scales
    assert scales[0].isfinite().all()
    assert not scales[1, 0].isfinite()


def test_only_complete_groups_can_be_quantised() -> None:
    assert can_quantize((3, 64))
    assert not can_quantize((3, 48))
    assert not can_quantize((64,))
    assert not can_quantize((3, 3, 64))
