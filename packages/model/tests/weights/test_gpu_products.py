"""When the library multiplies, and when parts of a matrix are dequantised."""

import importlib
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.weights import Weights, gpu_products
from gemma_model.weights.gpu_products import GpuProducts, check
from gemma_model.weights.humming_weight import ROW_RANGES, HummingWeight, ZeroPointError
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.stored_tensor import StoredTensor
from gemma_model.weights.weight import QuantizedWeight

from .quantized import random_matrix


class Packed:
    """A matrix in the place of ``HummingWeight``, with errors that a test chooses."""

    def __init__(self, matrix: QuantizedTensor, error: float = 0, order: Tensor | None = None) -> None:
        self._dense, self._error = matrix.dequantize(), error
        self._order = torch.arange(matrix.shape[0]) if order is None else order
        self.device, self.dtype, self.shape, self.nbytes = (
            torch.device("cpu"),
            torch.bfloat16,
            matrix.shape,
            1,
        )
        self.numbers_of_rows: list[int] = []

    def matmul(self, x: Tensor) -> Tensor:
        self.numbers_of_rows.append(len(x))
        return (x.float() @ self._dense[self._order].t() * (1 + self._error)).to(self.dtype)

    def rows(self, ids: Tensor) -> Tensor:
        return self._dense[ids].to(self.dtype)


Pack = Callable[[QuantizedTensor, torch.dtype], Packed]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pack], list[Packed]]:
    """Installs a library, and returns what it has packed."""

    def install(pack: Pack) -> list[Packed]:
        packed: list[Packed] = []

        def recorded(matrix: QuantizedTensor, dtype: torch.dtype) -> Packed:
            packed.append(pack(matrix, dtype))
            return packed[-1]

        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
        monkeypatch.setattr(importlib, "import_module", lambda name: None)
        monkeypatch.setattr(HummingWeight, "pack", staticmethod(recorded))
        return packed

    return install


MATRIX = random_matrix(256, 128, 4)


def test_each_kernel_is_checked_with_the_first_matrix_of_a_kind(
    library: Callable[[Pack], list[Packed]],
) -> None:
    packed, products = library(lambda matrix, _: Packed(matrix)), GpuProducts()
    weights = [products.pack(random_matrix(256, 128, 4, seed=seed), torch.bfloat16) for seed in (0, 1)]
    assert [*map(id, weights)] == [*map(id, packed)]
    assert [each.numbers_of_rows for each in packed] == [[1, *ROW_RANGES], []]
    products.pack(random_matrix(128, 128, 4), torch.bfloat16)
    assert packed[2].numbers_of_rows == [1, *ROW_RANGES]


def test_large_products_are_not_computed_for_a_check(
    library: Callable[[Pack], list[Packed]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_products, "MAX_CHECKED_ELEMENTS", 256 * 32)
    packed = library(lambda matrix, _: Packed(matrix))
    GpuProducts().pack(MATRIX, torch.bfloat16)
    assert packed[0].numbers_of_rows == [1, 8, 16, 32]


SWAPPED = torch.arange(256)
SWAPPED[:128] = torch.arange(127, -1, -1)


@pytest.mark.parametrize(
    ("pack", "reason"),
    [
        (lambda matrix, _: Packed(matrix, error=0.1), "the product of 1 rows differs .* by 0.1"),
        (lambda matrix, _: Packed(matrix, error=float("nan")), "differs .* by nan"),
        (lambda matrix, _: Packed(matrix, order=SWAPPED), "differs"),
        (lambda matrix, _: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_fails_its_check_is_not_used(
    library: Callable[[Pack], list[Packed]], pack: Pack, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    packed, products = library(pack), GpuProducts()
    with caplog.at_level(logging.WARNING):
        weights = [products.pack(MATRIX, torch.bfloat16) for _ in range(3)]
    x = torch.randn(2, 128).to(torch.bfloat16)
    for weight in weights:
        assert isinstance(weight, QuantizedWeight)
        assert torch.equal(weight.matmul(x), x @ MATRIX.dequantize(torch.bfloat16).t())
    assert len(packed) <= 1  # it is not tried again
    (message,) = caplog.messages
    assert message.startswith("products with int4 [256, 128] in groups of 32 dequantise it, which is slow: ")
    assert re.search(reason, message)


def test_a_matrix_that_cannot_be_packed_does_not_change_others_of_its_kind(
    library: Callable[[Pack], list[Packed]], caplog: pytest.LogCaptureFixture
) -> None:
    """Its numbers may be the reason, not its shape."""
    good, bad = random_matrix(256, 128, 4, seed=1), MATRIX

    def pack(matrix: QuantizedTensor, dtype: torch.dtype) -> Packed:
        if matrix is bad:
            raise ZeroPointError("it has zero points above 32")
        return Packed(matrix)

    library(pack)
    products = GpuProducts()
    kinds = [isinstance(products.pack(each, torch.bfloat16), Packed) for each in (bad, good, bad, good)]
    assert kinds == [False, True, False, True]
    assert "zero points" in caplog.text


def test_unsupported_formats_are_dequantised(
    library: Callable[[Pack], list[Packed]], caplog: pytest.LogCaptureFixture
) -> None:
    packed = library(lambda matrix, _: Packed(matrix))
    products = GpuProducts()
    for matrix in (random_matrix(96, 128, 4), random_matrix(64, 128, 8, offsets=True)):
        assert isinstance(products.pack(matrix, torch.bfloat16), QuantizedWeight)
    assert not packed
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "its size is no multiple of 64 x 128",
        "offsets of 8-bit integers are not supported",
    ]


def missing(name: str) -> None:
    raise ImportError(f"No module named {name!r}")


@pytest.mark.parametrize(
    ("changes", "dtype", "reason"),
    [
        ({}, torch.float32, "humming-kernels multiplies bfloat16, and this is float32"),
        (
            {"capability": (7, 5)},
            torch.bfloat16,
            "the GPU has compute capability 7.5, and bfloat16 needs 8.0",
        ),
        ({"import": missing}, torch.bfloat16, "cannot be imported: ImportError: No module named 'humming'"),
    ],
)
def test_without_the_library_the_reason_is_logged_once(
    library: Callable[[Pack], list[Packed]],
    changes: dict[str, Any],
    dtype: torch.dtype,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    packed = library(lambda matrix, _: Packed(matrix))
    if "capability" in changes:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: changes["capability"])
    if "import" in changes:
        monkeypatch.setattr(importlib, "import_module", changes["import"])
    products = GpuProducts()
    assert all(isinstance(products.pack(MATRIX, dtype), QuantizedWeight) for _ in range(2))
    assert not packed
    (message,) = caplog.messages
    assert reason in message


def test_only_matrices_for_products_are_packed(library: Callable[[Pack], list[Packed]]) -> None:
    library(lambda matrix, _: Packed(matrix))
    stored = {name: StoredTensor(lambda: (), lambda: MATRIX) for name in ("product", "table")}
    weights = Weights(stored, "cpu", torch.bfloat16, gpu_products=GpuProducts())
    assert isinstance(weights.take_matrix("product"), Packed)
    assert isinstance(weights.take_table("table"), QuantizedWeight)


def test_rounding_passes_a_check() -> None:
    """Scales of fp16 rounded to bf16, and zero points of K-quants, which are fractions."""
    matrix = random_matrix(256, 1024, 4, offsets=True)
    assert matrix.offsets is not None
    scales, zeros = matrix.scales.bfloat16(), (-matrix.offsets / matrix.scales.float()).clamp(-32, 32)
    exact = QuantizedTensor(matrix.quants, matrix.scales, -zeros * matrix.scales.float(), 4)
    rounded = QuantizedTensor(matrix.quants, scales, -zeros.bfloat16().float() * scales.float(), 4)
    check(Packed(rounded), exact)  # type: ignore[arg-type]
