"""The tensors of safetensors files: ``model.safetensors``, or the shards of an index."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gemma_model.weights.stored_tensor import StoredTensor
from gemma_wire import InvalidRequest

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def open_safetensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder.

    Raises:
        InvalidRequest: when a file is missing or is not what the index says.
    """
    stored: dict[str, StoredTensor] = {}
    for file, keys in _files(folder).items():
        stored |= _stored(file, keys)
    return stored


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


def _stored(file: Path, expected: set[str] | None) -> dict[str, StoredTensor]:
    """The tensors of a file; they are memory-mapped, not copied."""
    try:
        opened: Any = safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InvalidRequest(f"cannot read {file}: {error}", "MODEL_NAME") from None
    keys = set(opened.keys())
    if expected is not None and keys != expected:
        wrong = ", ".join(sorted(keys ^ expected)[:5])
        raise InvalidRequest(f"{file} does not match its index: {wrong}", "MODEL_NAME")
    return {key: StoredTensor.dense(partial(_load, opened, key)) for key in keys}


def _load(opened: Any, key: str) -> Tensor:
    tensor = load_tensor(opened, key)
    if tensor.dtype not in DTYPES:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise InvalidRequest(
            f"{key} is {dtype}; only float32, float16 and bfloat16 are supported", "MODEL_NAME"
        )
    return tensor


def load_tensor(opened: Any, key: str) -> Tensor:
    """A tensor of an opened file."""
    tensor: Tensor = opened.get_tensor(key)
    return tensor
