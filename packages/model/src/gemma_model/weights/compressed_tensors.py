"""The matrices of compressed-tensors checkpoints.

A matrix ``NAME.weight`` is stored as several tensors, with w = (q - zero point) * scale:

    pack-quantized   NAME.weight_packed      int32 [out, in * bits / 32]: q + 2^(bits - 1), the first element
                                             in the lowest bits
                     NAME.weight_shape       int64 [2]: out and in
                     NAME.weight_scale       [out, in / group size], or [out, 1]
                     NAME.weight_zero_point  int32 [out * bits / 32, groups]: packed along the columns;
                                             of asymmetric matrices alone
    int-quantized    NAME.weight             int8 [out, in]
                     NAME.weight_scale       as above, or one number
                     NAME.weight_zero_point  int8, the shape of the scales
    float-quantized  NAME.weight             float8_e4m3fn [out, in]; it is loaded as a dense matrix
                     NAME.weight_scale       [out, 1], or one number
"""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.safetensors_files import DTYPES, FileTensor, open_files
from gemma_model.weights.stored_tensor import StoredTensor
from gemma_wire import InvalidRequest
from gemma_wire.quantization import QuantizationConfig, QuantizationScheme

PACKED, SCALE, SHAPE, ZERO_POINT = "weight_packed", "weight_scale", "weight_shape", "weight_zero_point"
ACTIVATIONS = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")
"""Tensors for quantised activations, which are not used."""

SUFFIXES = ("weight", PACKED, SCALE, SHAPE, ZERO_POINT, "weight_g_idx", *ACTIVATIONS)
QUANTIZED_DTYPES = {"int": "I8", "float": "F8_E4M3"}
OFFSET_OF_8_BITS = 0x80
"""What is added to an integer of 8 bits before it is packed; so its highest bit is inverted."""


def open_compressed_tensors(folder: Path, config: QuantizationConfig) -> dict[str, StoredTensor]:
    """The tensors of a folder; those of a quantised matrix are one.

    Args:
        folder: of the checkpoint.
        config: which matrices are quantised, and how.

    Raises:
        InvalidRequest: when a file is missing or is not what the index says, or the tensors of a matrix are
            not what ``config`` says.
    """
    modules: dict[str, dict[str, FileTensor]] = {}
    stored: dict[str, StoredTensor] = {}
    for key, tensor in open_files(folder).items():
        module, _, suffix = key.rpartition(".")
        if suffix in SUFFIXES:
            modules.setdefault(module, {})[suffix] = tensor
        else:
            stored[key] = StoredTensor.dense(tensor.load_float)
    for module, parts in modules.items():
        stored[f"{module}.weight"] = _stored(module, parts, config)
    return stored


def _stored(module: str, parts: Mapping[str, FileTensor], config: QuantizationConfig) -> StoredTensor:
    extra = parts.keys() - {"weight", *ACTIVATIONS}
    weight = parts.get("weight")
    if not extra and weight is not None and weight.dtype not in QUANTIZED_DTYPES.values():
        return StoredTensor.dense(weight.load_float)
    if "weight_g_idx" in parts:
        raise _wrong(f"{module}.weight_g_idx: columns in another order (actorder group) are not supported")
    scheme = config.scheme_of(module)
    if scheme is None:
        raise _wrong(f"{module} is quantised, but quantization_config does not say how")
    return _packed(module, parts, scheme) if scheme.packed else _unpacked(module, parts, scheme)


def _packed(module: str, parts: Mapping[str, FileTensor], scheme: QuantizationScheme) -> StoredTensor:
    packed, scales = _part(module, parts, PACKED), _part(module, parts, SCALE)
    out, width = _shape(module, parts)
    per_word = 32 // scheme.bits
    _check(packed, {"I32"}, (out, -(-width // per_word)))
    groups = _groups(module, scheme, width)
    _check(scales, DTYPES.keys(), (out, groups))
    if scheme.bits == 4 and width % 2:
        raise _wrong(f"{module} has {width} columns; with 4 bits only even numbers are supported")
    decode = partial(_decode_packed, scheme.bits, width)
    _only(module, parts, scheme, {PACKED, SCALE, SHAPE})
    if scheme.symmetric:
        return StoredTensor(lambda: (packed.load(), scales.load()), decode)
    zeros = _part(module, parts, ZERO_POINT)
    _check(zeros, {"I32"}, (-(-out // per_word), groups))
    return StoredTensor(
        lambda: (packed.load(), scales.load(), _unpack_zero_points(zeros.load(), scheme.bits, out)), decode
    )


def _unpacked(module: str, parts: Mapping[str, FileTensor], scheme: QuantizationScheme) -> StoredTensor:
    weight, scales = _part(module, parts, "weight"), _part(module, parts, SCALE)
    if len(weight.shape) != 2:
        raise _wrong(f"{weight.key} has the shape {list(weight.shape)}; only matrices can be quantised")
    _check(weight, {QUANTIZED_DTYPES[scheme.type]}, weight.shape)
    out, width = weight.shape
    groups = _groups(module, scheme, width)
    one = scheme.group_size is None and scales.shape in ((), (1,), (1, 1))
    _check(scales, DTYPES.keys(), scales.shape if one else (out, groups))
    _only(module, parts, scheme, {"weight", SCALE})
    decode = _decode_float if scheme.type == "float" else _decode_integers

    def per_row(tensor: FileTensor) -> Tensor:
        return tensor.load().reshape(1, 1).repeat(out, 1) if one else tensor.load()

    if scheme.symmetric:
        return StoredTensor(lambda: (weight.load(), per_row(scales)), decode)
    zeros = _part(module, parts, ZERO_POINT)
    _check(zeros, {"I8"}, scales.shape)
    return StoredTensor(lambda: (weight.load(), per_row(scales), per_row(zeros)), decode)


def _decode_packed(bits: int, width: int, packed: Tensor, scales: Tensor, *zeros: Tensor) -> QuantizedTensor:
    """A matrix from int32; ``zeros`` are zero points as bytes, with the same offset as the integers."""
    quants = packed.view(torch.uint8)[:, : width * bits // 8]
    if bits == 4:  # a nibble is q + 8, as ``QuantizedTensor`` stores it
        return QuantizedTensor(quants, scales, _offsets(scales, *zeros), 4)
    quants, *zeros_signed = (_signed(stored) for stored in (quants, *zeros))
    return QuantizedTensor(quants, scales, _offsets(scales, *zeros_signed), 8)


def _decode_integers(quants: Tensor, scales: Tensor, *zeros: Tensor) -> QuantizedTensor:
    return QuantizedTensor(quants, scales, _offsets(scales, *zeros), 8)


def _decode_float(weight: Tensor, scales: Tensor) -> Tensor:
    return (weight.float() * scales.float()).to(scales.dtype)


def _signed(stored: Tensor) -> Tensor:
    return (stored ^ OFFSET_OF_8_BITS).view(torch.int8)


def _offsets(scales: Tensor, *zeros: Tensor) -> Tensor | None:
    """``- zero point * scale``, which fp32 represents exactly if the scales have 16 bits."""
    return -zeros[0].float() * scales.float() if zeros else None


def _unpack_zero_points(packed: Tensor, bits: int, out: int) -> Tensor:
    """``[out * bits / 32, groups]`` int32 → bytes ``[out, groups]``, with the offset."""
    stored = packed.t().contiguous().view(torch.uint8)
    if bits == 4:
        stored = torch.stack((stored & 15, stored >> 4), dim=-1).flatten(-2)
    return stored[:, :out].t().contiguous()


def _shape(module: str, parts: Mapping[str, FileTensor]) -> tuple[int, int]:
    """Rows and columns; the only tensor whose values are read when a checkpoint is opened."""
    shape = _part(module, parts, SHAPE)
    _check(shape, {"I64", "I32"}, (2,))
    out, width = map(int, shape.load().tolist())
    if min(out, width) < 1:
        raise _wrong(f"{shape.key} is {[out, width]}; a matrix has at least one row and column")
    return out, width


def _groups(module: str, scheme: QuantizationScheme, width: int) -> int:
    groups, rest = divmod(width, scheme.group_size or width)
    if rest:
        raise _wrong(f"{module} has {width} columns, which are no multiple of group_size {scheme.group_size}")
    return groups


def _part(module: str, parts: Mapping[str, FileTensor], suffix: str) -> FileTensor:
    if suffix not in parts:
        has = ", ".join(sorted(parts))
        raise _wrong(f"there is no tensor {module}.{suffix}; the file has only {has} of it")
    return parts[suffix]


def _only(
    module: str, parts: Mapping[str, FileTensor], scheme: QuantizationScheme, expected: set[str]
) -> None:
    """Check that there is nothing which would have to be used.

    Raises:
        InvalidRequest: naming the tensor.
    """
    known = {*expected, *ACTIVATIONS, *(() if scheme.symmetric else (ZERO_POINT,))}
    if surplus := parts.keys() - known:
        raise _wrong(f"{module}.{min(surplus)} does not belong to a matrix stored as {scheme.name}")


def _check(tensor: FileTensor, dtypes: Collection[str], shape: tuple[int, ...]) -> None:
    if tensor.dtype not in dtypes or tensor.shape != shape:
        found, wanted = f"{tensor.dtype} {list(tensor.shape)}", f"{' or '.join(dtypes)} {list(shape)}"
        raise _wrong(f"{tensor.key} is {found}, and not {wanted} as its configuration says")


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest(message, "MODEL_NAME")
