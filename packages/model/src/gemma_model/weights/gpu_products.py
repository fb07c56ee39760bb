"""Chooses how a GPU multiplies with quantised matrices: with humming-kernels, or dequantising parts of them.

The library is used where it can be, and only after it has computed what the dequantised matrix gives: the
first matrix of each shape and format is checked when it is loaded. Nothing that fails there stops the server.
"""

import importlib
import logging
import os
from pathlib import Path

import torch
from torch import Tensor

from gemma_model.weights.humming_weight import ROW_RANGES, HummingWeight, ZeroPointError, unsupported
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.weight import QuantizedWeight, RowWeight

log = logging.getLogger(__name__)

MIN_CAPABILITY = (8, 0)
FOLDER = Path("~/.cache/gemma-triton/humming").expanduser()
"""Where compiled kernels are kept for the next start."""

TOLERANCE = 0.02
"""Difference of a checked product, relative to its size. Rounding scales, zero points and results to bf16
stays below 1 %; a wrong order of rows or columns differs by more than 100 %."""

CHECKED_COLUMNS = 256
"""Columns of a product, and rows of a matrix, that are compared."""

MAX_CHECKED_ELEMENTS = 1 << 26
"""Elements of the largest product that is computed for a check."""


class GpuProducts:
    """Packs matrices for the library; a matrix that it cannot multiply is dequantised when it is used."""

    def __init__(self) -> None:
        self._library: str | None = None
        """Why the library is not used; empty: it is."""
        self._kinds: dict[str, str] = {}
        """What each kind of matrix failed with; empty: it passed."""

    def pack(self, matrix: QuantizedTensor, dtype: torch.dtype) -> RowWeight:
        """A matrix on the device, in the best format for products."""
        if self._library is None:
            self._library = _reason_against(matrix.quants.device, dtype)
            if self._library:
                log.warning("products dequantise their matrices, which is slow: %s", self._library)
        if self._library:
            return QuantizedWeight(matrix, dtype)
        kind = _kind(matrix)
        reason = self._kinds.get(kind) or unsupported(matrix)
        if not reason:
            try:
                packed = HummingWeight.pack(matrix, dtype)
                if kind not in self._kinds:
                    check(packed, matrix)
            except ZeroPointError as error:
                log.warning("products with a matrix of %s dequantise it, which is slow: %s", kind, error)
                return QuantizedWeight(matrix, dtype)
            except Exception as error:
                log.debug("the exception", exc_info=error)
                reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            else:
                self._kinds[kind] = ""
                return packed
        if self._kinds.get(kind) != reason:
            log.warning("products with %s dequantise it, which is slow: %s", kind, reason)
            self._kinds.setdefault(kind, reason)
        return QuantizedWeight(matrix, dtype)


def _reason_against(device: torch.device, dtype: torch.dtype) -> str:
    """Why the library cannot be used; empty: it can."""
    if dtype != torch.bfloat16:
        return f"humming-kernels multiplies bfloat16, and this is {str(dtype).removeprefix('torch.')}"
    if (capability := torch.cuda.get_device_capability(device)) < MIN_CAPABILITY:
        (major, minor), (least, _) = capability, MIN_CAPABILITY
        return f"the GPU has compute capability {major}.{minor}, and bfloat16 needs {least}.0"
    os.environ.setdefault("HUMMING_CACHE_DIR", str(FOLDER))  # read when the library compiles
    try:
        importlib.import_module("humming")
    except Exception as error:  # also of libraries that it loads
        return f"humming-kernels cannot be imported: {type(error).__name__}: {error}"
    return ""


def _kind(matrix: QuantizedTensor) -> str:
    out, width = matrix.shape
    offsets = "" if matrix.offsets is None else " with offsets"
    return f"int{matrix.bits} [{out}, {width}] in groups of {matrix.group_size}{offsets}"


def check(weight: HummingWeight, matrix: QuantizedTensor) -> None:
    """Check products with each compiled kernel, and rows, with the dequantised matrix.

    Raises:
        ValueError: they differ by more than rounding.
    """
    out, width = matrix.shape
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(out, (CHECKED_COLUMNS,), generator=generator).to(weight.device)
    expected = matrix.rows(ids).dequantize()
    _compare("rows", weight.rows(ids), expected)
    for rows in (1, *ROW_RANGES):
        if rows * out <= MAX_CHECKED_ELEMENTS:
            x = torch.randn(rows, width, generator=generator).to(weight.device, weight.dtype)
            _compare(f"the product of {rows} rows", weight.matmul(x)[:, ids], x.float() @ expected.t())


def _compare(what: str, found: Tensor, expected: Tensor) -> None:
    difference = float((found.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    if not difference <= TOLERANCE:  # or NaN
        raise ValueError(f"{what} differs from that of the dequantised matrix by {difference:.2g}")
