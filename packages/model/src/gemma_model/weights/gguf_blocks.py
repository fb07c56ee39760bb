"""The block types of GGUF: bytes as they are in the file, to integers and scales, without rounding.

Each decoder gets ``uint8 [rows, blocks, bytes of a block]``. The layouts are those of ggml-common.h and
ggml-quants.c in https://github.com/ggml-org/llama.cpp. There d, dmin and m are fp16.

NumPy decodes slices in threads. PyTorch would wait at the end of each operation for all of its own threads,
which takes much longer while another process uses a core.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_wire.gguf_types import BlockType

SLICE_BYTES: Final = 1 << 20
"""Bytes that are decoded at a time, so that intermediate results stay in the cache."""

DENSE: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
IQ4_NL_VALUES: Final = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

Array = npt.NDArray[Any]
Parts = tuple[Array, Array, Array | None]
"""Integers, scales and offsets of a ``QuantizedTensor``."""


def decode_rows(kind: BlockType, rows: Tensor) -> Tensor | QuantizedTensor:
    """Rows of a matrix.

    Args:
        kind: the block type.
        rows: ``uint8 [rows, bytes of a row]``.
    """
    if kind.name in DENSE:
        return rows.contiguous().view(DENSE[kind.name])
    decode, bits = DECODERS[kind.name]
    blocks = rows.numpy().reshape(len(rows), -1, kind.nbytes)
    step = max(1, SLICE_BYTES // rows.shape[1])
    whole = decode(blocks) if len(rows) <= step else _decode_slices(decode, blocks, step)
    quants, scales, offsets = (
        None if part is None else torch.from_numpy(part.reshape(len(rows), -1)) for part in whole
    )
    assert quants is not None
    assert scales is not None
    return QuantizedTensor(quants, scales, offsets, bits)


def _decode_slices(decode: Callable[[Array], Parts], blocks: Array, step: int) -> Parts:
    """As ``decode``, ``step`` rows at a time, in threads."""
    first = decode(blocks[:1])
    whole = tuple(None if part is None else np.empty((len(blocks), part.size), part.dtype) for part in first)

    def decode_slice(at: int) -> None:
        for own, complete in zip(decode(blocks[at : at + step]), whole, strict=True):
            if own is not None and complete is not None:
                complete[at : at + step] = own.reshape(len(own), -1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode_slice, range(0, len(blocks), step)))
    quants, scales, offsets = whole
    assert quants is not None
    assert scales is not None
    return quants, scales, offsets


def _half(field: Array) -> Array:
    """An fp16 number of each block: ``uint8 [..., 2]`` → ``[...]``."""
    return np.ascontiguousarray(field).view(np.float16)[..., 0]


def _nibbles(packed: Array) -> Array:
    """``uint8 [..., n]`` → ``[..., 2n]``: the low nibbles of all bytes, then the high ones."""
    return np.concatenate((packed & 15, packed >> 4), axis=-1)


def _neighbours(packed: Array) -> Array:
    """The same, two elements in each byte as in ``QuantizedTensor``: ``uint8 [..., n]`` → ``[..., n]``."""
    pairs = np.ascontiguousarray(packed).view(np.uint16)
    nibbles: Array = np.stack((pairs & 0x0F0F, (pairs >> 4) & 0x0F0F), axis=-2)
    nibbles |= nibbles >> 4
    return nibbles.astype(np.uint8).reshape(packed.shape)


def _fifth_bits(packed: Array) -> Array:
    """``uint8 [..., n]`` → ``[..., 8n]``: each bit as 0 or 16."""
    return np.unpackbits(packed, axis=-1, bitorder="little") << 4


def _signed(quants: Array, zero: int = 0) -> Array:
    return quants.view(np.int8) - np.int8(zero)


def _q4_0(blocks: Array) -> Parts:
    """D, 32 nibbles; d * (q - 8)."""
    return _neighbours(blocks[..., 2:]), _half(blocks[..., :2]), None


def _q4_1(blocks: Array) -> Parts:
    """D, m, 32 nibbles; d * q + m."""
    return _neighbours(blocks[..., 4:]), _half(blocks[..., :2]), _half(blocks[..., 2:4]).astype(np.float32)


def _q5_0(blocks: Array) -> Parts:
    """D, 32 fifth bits, 32 nibbles; d * (q - 16)."""
    quants = _nibbles(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6])
    return _signed(quants, 16), _half(blocks[..., :2]), None


def _q5_1(blocks: Array) -> Parts:
    """D, m, 32 fifth bits, 32 nibbles; d * q + m."""
    quants = _nibbles(blocks[..., 8:]) | _fifth_bits(blocks[..., 4:8])
    return _signed(quants), _half(blocks[..., :2]), _half(blocks[..., 2:4]).astype(np.float32)


def _q8_0(blocks: Array) -> Parts:
    """D, 32 int8; d * q."""
    return blocks[..., 2:].view(np.int8), _half(blocks[..., :2]), None


def _iq4_nl(blocks: Array) -> Parts:
    """D, 32 nibbles that are numbers of values in a table; d * value."""
    return np.array(IQ4_NL_VALUES, np.int8)[_nibbles(blocks[..., 2:])], _half(blocks[..., :2]), None


def _k_scales(blocks: Array) -> tuple[Array, Array]:
    """The first 16 bytes of a block of Q4_K and Q5_K: d, dmin, 8 scales and 8 minima of 6 bits.

    Returns:
        Scales and offsets of the 8 groups, ``[rows, blocks, 8]``.
    """
    first, second, rest = (blocks[..., at : at + 4] for at in (4, 8, 12))
    scales = np.concatenate((first & 63, (rest & 15) | (first >> 6 << 4)), axis=-1)
    minima = np.concatenate((second & 63, (rest >> 4) | (second >> 6 << 4)), axis=-1)
    d, dmin = (_half(blocks[..., at : at + 2]).astype(np.float32)[..., None] for at in (0, 2))
    return d * scales, -(dmin * minima)


def _q4_k(blocks: Array) -> Parts:
    """Scales, 256 nibbles: of each 32 bytes the low ones, then the high ones."""
    return _neighbours(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32)), *_k_scales(blocks)


def _q5_k(blocks: Array) -> Parts:
    """Scales, 256 fifth bits, nibbles as in Q4_K. Bit g of byte i belongs to element i of group g."""
    shape = blocks.shape[:2]
    groups = np.arange(8, dtype=np.uint8)[:, None]
    fifth = ((blocks[..., None, 16:48] >> groups) & 1) << 4
    quants = _nibbles(blocks[..., 48:].reshape(*shape, 4, 32)).reshape(*shape, 8, 32) | fifth
    return _signed(quants), *_k_scales(blocks)


def _q6_k(blocks: Array) -> Parts:
    """Low 4 bits, high 2 bits, 16 int8 scales, d; d * scale * (q - 32). A block has two equal halves."""
    shape = blocks.shape[:2]
    shifts = np.array((0, 2, 4, 6), np.uint8)[:, None]
    low, high = blocks[..., :128].reshape(*shape, 2, 64), blocks[..., 128:192].reshape(*shape, 2, 1, 32)
    upper = ((high >> shifts) & 3) << 4
    quants = _nibbles(low).reshape(*shape, 2, 4, 32) | upper
    d = _half(blocks[..., 208:]).astype(np.float32)[..., None]
    return _signed(quants, 32), d * blocks[..., 192:208].view(np.int8), None


DECODERS: Final[Mapping[str, tuple[Callable[[Array], Parts], Literal[4, 8]]]] = {
    "Q4_0": (_q4_0, 4),
    "Q4_1": (_q4_1, 4),
    "Q5_0": (_q5_0, 8),
    "Q5_1": (_q5_1, 8),
    "Q8_0": (_q8_0, 8),
    "Q4_K": (_q4_k, 4),
    "Q5_K": (_q5_k, 8),
    "Q6_K": (_q6_k, 8),
    "IQ4_NL": (_iq4_nl, 8),
}
