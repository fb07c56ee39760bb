"""The tensors of safetensors files: ``model.safetensors``, or the shards of an index."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gemma_model.weights.stored_tensor import StoredTensor
from gemma_wire import InvalidRequest

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a safetensors file.

    Args:
        file: its path.
        opened: the file.
        key: its name there.
        shape: of it.
        dtype: as the format calls it: ``BF16``.
    """

    file: Path
    opened: Any = field(repr=False)
    key: str
    shape: tuple[int, ...]
    dtype: str

    def load(self) -> Tensor:
        """The tensor, memory-mapped."""
        return load_tensor(self.opened, self.key)

    def load_float(self) -> Tensor:
        """The tensor, memory-mapped.

        Raises:
            InvalidRequest: it is not of float numbers that the engine supports.
        """
        if self.dtype not in DTYPES:
            name = str(self.load().dtype).removeprefix("torch.")
            raise InvalidRequest(
                f"{self.key} is {name}; only float32, float16 and bfloat16 are supported", "MODEL_NAME"
            )
        return self.load()


def open_safetensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder.

    Raises:
        InvalidRequest: when a file is missing or is not what the index says.
    """
    return {key: StoredTensor.dense(tensor.load_float) for key, tensor in open_files(folder).items()}


def open_files(folder: Path) -> dict[str, FileTensor]:
    """The tensors of a folder, of any dtype.

    Raises:
        InvalidRequest: when a file is missing or is not what the index says.
    """
    tensors: dict[str, FileTensor] = {}
    for file, keys in _files(folder).items():
        tensors |= _open(file, keys)
    return tensors


def _files(folder: Path) -> dict[Path, set[str] | None]:
    """The files and which keys each should hold; ``None``: whatever it holds."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return {folder / "model.safetensors": None}
    files: dict[Path, set[str] | None] = {}
    for key, file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
        keys = files.setdefault(folder / file, set())
        assert keys is not None
        keys.add(key)
    return files


def _open(file: Path, expected: set[str] | None) -> dict[str, FileTensor]:
    """The tensors of a file; they are memory-mapped, not copied."""
    try:
        opened: Any = safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InvalidRequest(f"cannot read {file}: {error}", "MODEL_NAME") from None
    keys = set(opened.keys())
    if expected is not None and keys != expected:
        wrong = ", ".join(sorted(keys ^ expected)[:5])
        raise InvalidRequest(f"{file} does not match its index: {wrong}", "MODEL_NAME")
    headers = {key: opened.get_slice(key) for key in keys}
    return {
        key: FileTensor(file, opened, key, tuple(header.get_shape()), header.get_dtype())
        for key, header in headers.items()
    }


def load_tensor(opened: Any, key: str) -> Tensor:
    """A tensor of an opened file."""
    tensor: Tensor = opened.get_tensor(key)
    return tensor
