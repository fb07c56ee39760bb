"""The tensors of a GGUF file under the names of the published checkpoints."""

import mmap
import warnings
from collections.abc import Iterator
from functools import partial
from math import prod

import torch
from torch import Tensor

from gemma_model.gguf_checkpoint.mmproj_names import checkpoint_name as encoder_name
from gemma_model.gguf_checkpoint.mmproj_names import checkpoint_shape, usual_name
from gemma_model.weights.gguf_blocks import decode_rows
from gemma_model.weights.gguf_names import STACKED, checkpoint_name, has_one_added
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.stored_tensor import StoredTensor
from gemma_wire.gguf import GGUF, TensorInfo, refuse
from gemma_wire.gguf_types import BlockType


def open_gguf(model: GGUF) -> dict[str, StoredTensor]:
    """The tensors of a text model, memory-mapped.

    Args:
        model: of an architecture that ``gguf_names`` knows.

    Raises:
        InvalidRequest: a tensor is not one of such a model.
    """
    every = (_named(model.architecture, info) for info in model.tensors.values())
    return {name: tensor for named in every for name, tensor in named}


def open_mmproj(model: GGUF) -> dict[str, StoredTensor]:
    """The tensors of encoders, memory-mapped. They are dense when they are loaded.

    Args:
        model: an ``mmproj`` file.

    Raises:
        InvalidRequest: a tensor is not one of the encoders of Gemma 3n.
    """
    stored: dict[str, StoredTensor] = {}
    for info in model.tensors.values():
        name = encoder_name(usual_name(info.name))
        if name is None:
            raise refuse(info.file, f"has the tensor {info.name!r}, which no encoder of Gemma 3n has")
        shape, rows = checkpoint_shape(info.name, info.shape), prod(info.shape[:-1])
        stored[name] = StoredTensor(partial(_map_rows, info, 0, rows), partial(_dense, info.kind, shape))
    return stored


def _dense(kind: BlockType, shape: tuple[int, ...], rows: Tensor) -> Tensor:
    decoded = decode_rows(kind, rows)
    return (decoded.dequantize() if isinstance(decoded, QuantizedTensor) else decoded).reshape(shape)


def _named(architecture: str, info: TensorInfo) -> Iterator[tuple[str, StoredTensor]]:
    name = checkpoint_name(architecture, info.name)
    stacked = STACKED.get(info.name) if architecture == "gemma3n" else None
    if stacked and len(info.shape) == 3:
        count, rows, _ = info.shape
        for i in range(count):
            yield stacked.format(i), _matrix(info, i * rows, rows)
    elif name and len(info.shape) == 2:
        yield name, _matrix(info, 0, info.shape[0])
    elif name and len(info.shape) == 1:
        shift = 1 if has_one_added(architecture, info.name) else 0
        yield name, StoredTensor(partial(_map_rows, info, 0, 1), partial(_vector, info.kind, shift))
    else:
        what = f"the tensor {info.name!r} of shape {list(info.shape)}"
        raise refuse(info.file, f"has {what}, which a model of the architecture {architecture!r} has not")


def _matrix(info: TensorInfo, first: int, rows: int) -> StoredTensor:
    return StoredTensor(partial(_map_rows, info, first, rows), partial(decode_rows, info.kind))


def _vector(kind: BlockType, shift: int, row: Tensor) -> Tensor:
    decoded = decode_rows(kind, row)
    vector = (decoded.dequantize() if isinstance(decoded, QuantizedTensor) else decoded).flatten()
    return vector.float() - shift if shift else vector


def _map_rows(info: TensorInfo, first: int, rows: int) -> tuple[Tensor, ...]:
    """Rows as they are in the file, ``uint8 [rows, bytes of a row]``, in a mapping of their own."""
    offset, size = info.offset + first * info.row_bytes, rows * info.row_bytes
    rest = offset % mmap.ALLOCATIONGRANULARITY
    with info.file.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), rest + size, access=mmap.ACCESS_READ, offset=offset - rest)
        except (OSError, ValueError) as error:  # the file has become shorter
            raise refuse(info.file, f"cannot be memory-mapped: {error}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the tensor must not be written to, and never is
        flat = torch.frombuffer(mapped, dtype=torch.uint8, offset=rest)
    return (flat.view(rows, info.row_bytes),)
