"""Quantised matrices in the format of humming-kernels, which multiplies them on NVIDIA GPUs.

The library (https://github.com/vllm-project/humming) compiles a kernel for each shape and range of rows when
it is first used. It is imported only when a matrix is packed or multiplied.

In memory, blocks of 64 rows by 16 columns of the matrix follow each other, rows first. A block consists of
32 lanes of ``bits`` words. Let r be a row in a block and k a column. Lane 4 (r % 8) + k / 2 % 4 has it:

    4 bits: in word r / 16, at bit 4 (4 (k % 2) + 2 (r / 8 % 2) + k / 8)
    8 bits: in word r / 8, at bit 8 (2 (k % 2) + k / 8)

A nibble is stored as it is, and an int8 q as q if it is not negative, else as 127 - q. The scales of the 64
rows are in the order of r % 8, then r / 8.
"""

import json

import torch
from torch import Tensor

from gemma_model.weights.quantized_tensor import ZERO_OF_4_BITS, QuantizedTensor
from gemma_wire import InvalidRequest

BLOCK_ROWS, BLOCK_COLUMNS, LANES = 64, 16, 32
COLUMNS_MULTIPLE = 128
"""The width of a matrix has to be a multiple of it; larger groups are divided into groups of it."""

GROUP_SIZES = (16, 32, 64, COLUMNS_MULTIPLE)
SIGN_OF_8_BITS = 0x80
LARGEST_ZERO_POINT = 32.0
"""bf16 represents smaller zero points within 1/16 of an integer's step."""

ROW_RANGES = (8, 16, 32, 64, 128, 512)
"""For products with up to so many rows a kernel is compiled; the last also serves all larger numbers."""

LOCKS = 2048
"""Integers that the thread blocks of a product use to wait for each other; zero before and after."""


@torch.library.custom_op("gemma_model::humming_linear", mutates_args=())
def humming_linear(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    locks: Tensor,
    layer: str,
    kernels: str,
) -> Tensor:
    """The product of the library, as one operation for ``torch.compile``.

    Args:
        x: ``[M, in]``.
        weight: int32 ``[in / 16, out x 16 x bits / 32]``.
        scales: ``[groups, out]``.
        zero_points: the same shape.
        locks: see ``LOCKS``.
        layer: the library's description of the matrix, as JSON.
        kernels: the library's settings for ranges of rows, as JSON.
    """
    from humming.ops import humming_gemm  # noqa: PLC0415 - optional

    y: Tensor = humming_gemm(
        layer_config=layer,
        tuning_config=kernels,
        inputs=x.contiguous(),
        weight=weight,
        weight_scale=scales,
        zero_point=zero_points,
        locks=locks,
    )
    return y


@humming_linear.register_fake
def _(x: Tensor, _weight: Tensor, scales: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape[0], scales.shape[1])


class ZeroPointError(ValueError):
    """The zero points of a matrix are too large for bf16; others of its shape and format may be fine."""


def unsupported(matrix: QuantizedTensor) -> str:
    """Why a matrix cannot be packed; empty: it can."""
    out, width = matrix.shape
    if out % BLOCK_ROWS or width % COLUMNS_MULTIPLE:
        return f"its size is no multiple of {BLOCK_ROWS} x {COLUMNS_MULTIPLE}"
    if matrix.group_size not in GROUP_SIZES and matrix.group_size % COLUMNS_MULTIPLE:
        return f"groups of {matrix.group_size} are not supported"
    if matrix.offsets is not None and matrix.bits == 8:
        return "offsets of 8-bit integers are not supported"
    return ""


class HummingWeight:
    """A packed matrix.

    Args:
        weight: int32 ``[in / 16, out / 64, 32 lanes x bits]``.
        scales: ``[groups, out]``, in the dtype of the computation.
        zero_points: the same shape: what is subtracted from the integers; ``None``: they are symmetric.
        bits: of an integer.
    """

    def __init__(self, weight: Tensor, scales: Tensor, zero_points: Tensor | None, bits: int) -> None:
        self._weight, self._scales, self._zero_points, self._bits = weight, scales, zero_points, bits
        self.dtype, self.device = scales.dtype, scales.device
        self.shape = scales.shape[1], weight.shape[0] * BLOCK_COLUMNS
        self._locks = torch.zeros(LOCKS, dtype=torch.int32, device=self.device)
        parts = (weight, scales, zero_points)
        self.nbytes = sum(part.nbytes for part in parts if part is not None)
        self._layer, self._kernels = self._describe()

    @staticmethod
    def pack(matrix: QuantizedTensor, dtype: torch.dtype) -> "HummingWeight":
        """Pack a matrix of a GPU, for which ``unsupported`` is empty.

        Raises:
            ZeroPointError: its offsets are too large.
        """
        from humming.schema import HummingWeightSchema  # noqa: PLC0415 - optional
        from humming.transform import prepare_and_transform_humming_tensors  # noqa: PLC0415

        out, width = matrix.shape
        quants = matrix.quants if matrix.bits == 4 else matrix.quants.view(torch.uint8) ^ SIGN_OF_8_BITS
        group_size = min(matrix.group_size, COLUMNS_MULTIPLE)
        divided = matrix.group_size // group_size
        tensors = {
            "weight": quants.contiguous().view(torch.int32),
            "weight_scale": matrix.scales.to(dtype).repeat_interleave(divided, dim=1),
        }
        if matrix.offsets is not None:
            tensors["zero_point"] = _zero_points(matrix).to(dtype).repeat_interleave(divided, dim=1)
        schema = HummingWeightSchema(
            b_dtype=f"uint{matrix.bits}",
            weight_scale_group_size=group_size,
            has_zero_point=matrix.offsets is not None,
            is_fp_zero_point=matrix.offsets is not None,
        )
        with torch.cuda.device(matrix.quants.device):
            _, packed = prepare_and_transform_humming_tensors(tensors, out, width, schema, torch_dtype=dtype)
        weight = packed["weight"].view(width // BLOCK_COLUMNS, out // BLOCK_ROWS, LANES * matrix.bits)
        return HummingWeight(weight, packed["weight_scale"], packed.get("zero_point"), matrix.bits)

    def _describe(self) -> tuple[str, str]:
        """The library's description of the matrix, and its settings for ``ROW_RANGES``."""
        from humming.config import LayerConfig  # noqa: PLC0415 - optional
        from humming.tune import get_heuristics_config  # noqa: PLC0415

        out, width = self.shape
        name, asymmetric = str(self.dtype).removeprefix("torch."), self._zero_points is not None
        with torch.cuda.device(self.device):
            layer = LayerConfig(
                shape_n=out,
                shape_k=width,
                weight_scale_group_size=width // self._scales.shape[0],
                b_dtype=f"uint{self._bits}",
                has_zero_point=asymmetric,
                is_fp_zero_point=asymmetric,
                **dict.fromkeys(("a_dtype", "bs_dtype", "c_dtype"), name),
            )
            settings = [get_heuristics_config(layer, rows) for rows in ROW_RANGES]
        ends = (*ROW_RANGES[:-1], 1 << 30)
        return layer.to_str(), json.dumps([*zip((0, *ends), ends, settings, strict=False)])

    @property
    def operand(self) -> Tensor:
        """Not available: the C++ kernels read ``PackedWeight``."""
        raise TypeError("the C++ kernels cannot read this matrix")

    def matmul(self, x: Tensor) -> Tensor:
        """``x @ self.T``: ``[M, in]`` → ``[M, out]``."""
        weight = self._weight.flatten(1)
        y: Tensor = humming_linear(
            x, weight, self._scales, self._zero_points, self._locks, self._layer, self._kernels
        )
        return y

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by their numbers: int64 ``[n]`` → ``[n, in]``."""
        row, (_, width) = ids % BLOCK_ROWS, self.shape
        zero, one, eight = (torch.arange(n, device=self.device) for n in (4, 2, 2))  # k / 2 % 4, k % 2, k / 8
        lane = (row % 8 * 4).unsqueeze(-1) + zero
        word = row // 16 if self._bits == 4 else row // 8
        words = self._weight.view(*self._weight.shape[:2], LANES, self._bits)
        found = words[:, (ids // BLOCK_ROWS).unsqueeze(-1), lane, word.unsqueeze(-1)]  # [in / 16, n, 4]
        place = one * (16 // self._bits) + eight.unsqueeze(-1)  # [k / 8, k % 2]
        if self._bits == 4:
            place = place + (row // 8 % 2 * 2).view(-1, 1, 1, 1)  # [n, 1, k / 8, k % 2]
        stored = (found[..., None, None] >> (place * self._bits)) & ((1 << self._bits) - 1)
        return self._decode(stored.permute(1, 0, 3, 2, 4).reshape(len(ids), width), ids)

    def _decode(self, stored: Tensor, ids: Tensor) -> Tensor:
        """Stored integers of rows, ``[n, in]``, as values."""
        row = ids % BLOCK_ROWS
        places = ids - row + row % 8 * 8 + row // 8
        scales = self._scales[:, places].t().float().unsqueeze(-1)
        if self._bits == 8:
            stored = torch.where(stored < SIGN_OF_8_BITS, stored, SIGN_OF_8_BITS - 1 - stored)
        grouped = stored.float().view(len(ids), len(self._scales), -1)
        if self._bits == 4:
            zeros = self._zero_points
            grouped = grouped - (
                ZERO_OF_4_BITS if zeros is None else zeros[:, places].t().float().unsqueeze(-1)
            )
        return (grouped * scales).flatten(1).to(self.dtype)

    def row_range(self, begin: int, end: int) -> "HummingWeight":
        """The rows from ``begin`` to before ``end``; a copy, unless these are all rows.

        Raises:
            InvalidRequest: that would cut a block.
        """
        if (begin, end) == (0, self.shape[0]):
            return self
        _check_multiple(begin, BLOCK_ROWS)
        _check_multiple(end, BLOCK_ROWS)
        blocks = slice(begin // BLOCK_ROWS, end // BLOCK_ROWS)
        weight = self._weight[:, blocks].contiguous()
        zeros = None if self._zero_points is None else self._zero_points[:, begin:end].contiguous()
        return HummingWeight(weight, self._scales[:, begin:end].contiguous(), zeros, self._bits)

    def first_columns(self, count: int) -> "HummingWeight":
        """The first columns, as views of the same tensors.

        Raises:
            InvalidRequest: that would cut a block.
        """
        _check_multiple(count, COLUMNS_MULTIPLE)
        groups = count * len(self._scales) // self.shape[1]
        zeros = None if self._zero_points is None else self._zero_points[:groups]
        return HummingWeight(self._weight[: count // BLOCK_COLUMNS], self._scales[:groups], zeros, self._bits)


def _zero_points(matrix: QuantizedTensor) -> Tensor:
    """What is subtracted from the integers instead of adding offsets to the products."""
    assert matrix.offsets is not None
    zeros = -matrix.offsets / matrix.scales.float()
    if not bool((zeros.abs() <= LARGEST_ZERO_POINT).all()):  # or NaN
        raise ZeroPointError(f"it has zero points above {LARGEST_ZERO_POINT:.0f}")
    return zeros


def _check_multiple(count: int, block: int) -> None:
    if count % block:
        raise InvalidRequest(
            f"{count} neurons are not a multiple of {block}, the block size of quantised weights", "variants"
        )
