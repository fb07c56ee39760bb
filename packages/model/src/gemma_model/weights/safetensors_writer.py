"""Writes a safetensors file piece by piece, so that no complete tensor has to be in memory.

The format: https://huggingface.co/docs/safetensors/index#format
"""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, Self

from torch import Tensor, uint8

ITEM_SIZES = {"I64": 8, "F64": 8, "I32": 4, "F32": 4, "I16": 2, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}


@dataclass(frozen=True)
class TensorHeader:
    """A tensor to be written.

    Args:
        key: its name.
        dtype: as the format calls it: ``BF16``.
        shape: of it.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return ITEM_SIZES[self.dtype] * prod(self.shape)


class SafetensorsWriter:
    """A file whose tensors are known before they are written; use it as a context manager.

    Args:
        path: of the file, which must not exist.
        headers: of the tensors.
    """

    def __init__(self, path: Path, headers: Iterable[TensorHeader]) -> None:
        ordered = sorted(headers, key=lambda each: (-ITEM_SIZES[each.dtype], each.key))  # all aligned
        content: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for header in ordered:
            begin, end = end, end + header.nbytes
            offsets = [begin, end]
            content[header.key] = {
                "dtype": header.dtype,
                "shape": list(header.shape),
                "data_offsets": offsets,
            }
        text = json.dumps(content, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._positions: dict[str, int] = {}
        position = 8 + len(text)
        for header in ordered:
            self._positions[header.key] = position
            position += header.nbytes
        self._end = position
        self._file: BinaryIO = path.open("xb")
        self._file.write(struct.pack("<Q", len(text)) + text)
        self._written = 8 + len(text)

    def append(self, key: str, piece: Tensor) -> None:
        """Write the next piece of a tensor; each begins where the one before it ended."""
        data = piece.contiguous().reshape(-1).view(uint8).numpy()
        self._file.seek(self._positions[key])
        self._file.write(data.data)
        self._positions[key] += data.nbytes
        self._written += data.nbytes

    def __enter__(self) -> Self:
        """The writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the file, and check that every tensor is complete."""
        self._file.close()
        assert kind is not None or self._written == self._end, "a tensor is not complete"
