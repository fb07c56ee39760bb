"""Reads the header of GGUF files: metadata, and where each tensor is. The standard library alone.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A file can come from anywhere, so every
count and length is checked against what remains of the file before it is used.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import BinaryIO, Final

from gemma_wire.errors import InvalidRequest
from gemma_wire.gguf_types import ARRAY, BLOCK_TYPES, OTHER_TYPES, SCALARS, STRING, BlockType

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_ENTRIES: Final = 1 << 16
"""Tensors, or metadata keys, in one file."""
MAX_ARRAY: Final = 1 << 22
"""Elements of an array. A vocabulary has 262,400."""
MAX_NAME: Final = 1 << 16
"""Bytes of a key or of the name of a tensor."""
MAX_HEADER: Final = 1 << 27
"""Bytes before the data of the tensors."""
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 1 << 16
SPLIT_NAME: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_GIT_LFS_POINTER: Final = b"version https://git-lfs"

_TYPE_NAMES: Final = ", ".join(kind.name for kind in BLOCK_TYPES.values())

Value = bool | int | float | str | Sequence["Value"]


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is, and what it is.

    Args:
        shape: the outermost dimension first, as in PyTorch; the file has the reverse.
        kind: how its elements are stored.
        file: the file with its data.
        offset: of its data in the file, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    kind: BlockType
    file: Path
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, which is a run of elements along the innermost dimension."""
        return self.shape[-1] // self.kind.elements * self.kind.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return prod(self.shape[:-1]) * self.row_bytes


@dataclass(frozen=True)
class GGUF:
    """The header of a model in one or several files.

    Args:
        files: all of them, in their order.
        metadata: of the first file.
        tensors: of all files, by name.
    """

    files: tuple[Path, ...]
    metadata: Mapping[str, Value] = field(repr=False)
    tensors: Mapping[str, TensorInfo] = field(repr=False)

    @property
    def architecture(self) -> str:
        """The kind of model, such as ``gemma3n``."""
        return str(self.metadata.get("general.architecture", ""))


def refuse(path: Path, reason: str) -> InvalidRequest:
    """The error that a file cannot be used."""
    return InvalidRequest(f"{path.name} {reason}", "MODEL_NAME")


def read_gguf(path: Path) -> GGUF:
    """The header of a GGUF file, or of all parts if it is one of ``NAME-00001-of-00003.gguf``.

    Raises:
        InvalidRequest: a file is missing, damaged, truncated, or has something that is not supported; the
            message names the file, and the key or tensor.
    """
    parts = [_read_file(part) for part in split_files(path)]
    metadata, count = parts[0].metadata, parts[0].metadata.get("split.count", 1)
    if isinstance(count, int) and count > 1 and count != len(parts):
        raise refuse(path, f"is one of {count} parts, but its name is not NAME-00001-of-{count:05}.gguf")
    tensors: dict[str, TensorInfo] = {}
    for part in parts:
        for name, info in part.tensors.items():
            if name in tensors:
                raise refuse(info.file, f"has the tensor {name!r}, which another part has too")
            tensors[name] = info
    expected = metadata.get("split.tensors.count", len(tensors))
    if len(parts) > 1 and expected != len(tensors):
        raise refuse(path, f"is one of {len(parts)} parts with {len(tensors)} tensors, not {expected}")
    return GGUF(tuple(file for part in parts for file in part.files), metadata, tensors)


def split_files(path: Path) -> list[Path]:
    """All parts of a model in their order; the file alone if its name is not that of a part."""
    match = SPLIT_NAME.fullmatch(path.name)
    if match is None:
        return [path]
    names = (f"{match['stem']}-{i + 1:05}-of-{match['count']}.gguf" for i in range(int(match["count"])))
    return [path.with_name(name) for name in names] or [path]


def _read_file(path: Path) -> GGUF:
    if not path.is_file():
        raise InvalidRequest(f"there is no file {path}", "MODEL_NAME")
    try:
        with path.open("rb") as file:
            return _Reader(path, file).read()
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}", "MODEL_NAME") from None


class _Reader:
    """Reads one file from its beginning.

    Args:
        path: for error messages.
        file: open at its beginning.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._size, self._at = path.stat().st_size, 0
        self._where = "the beginning"  # for error messages

    def read(self) -> GGUF:
        """Metadata and tensors."""
        self._check_beginning()
        tensor_count, key_count = (self._count(what, MAX_ENTRIES) for what in ("tensors", "metadata keys"))
        metadata: dict[str, Value] = {}
        for _ in range(key_count):
            key, value = self._pair()
            if key in metadata:
                raise refuse(self._path, f"has the metadata key {key!r} twice")
            metadata[key] = value
        infos = [self._tensor_info() for _ in range(tensor_count)]
        start = self._data_start(metadata)
        tensors = {info.name: self._placed(info, start) for info in infos}
        if len(tensors) != len(infos):
            raise refuse(self._path, "has two tensors of one name")
        return GGUF((self._path,), metadata, tensors)

    def _check_beginning(self) -> None:
        beginning = self._file.read(len(_GIT_LFS_POINTER))
        self._file.seek(0)
        if beginning == _GIT_LFS_POINTER:
            raise refuse(self._path, "is a git-lfs pointer; run `git lfs pull` in its folder")
        if beginning[:4] != MAGIC:
            raise refuse(self._path, "is not a GGUF file: it does not begin with GGUF")
        self._bytes(len(MAGIC))
        (version,) = self._numbers("I", 1)
        if version not in VERSIONS:
            swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
            kind = "is big-endian" if swapped in VERSIONS else f"has version {version} of GGUF"
            raise refuse(self._path, f"{kind}; only versions 2 and 3, little-endian, are supported")

    def _bytes(self, count: int) -> bytes:
        """The next bytes, after a check that the file has them."""
        if count > self._size - self._at:
            raise refuse(
                self._path,
                f"is truncated or damaged: {self._where} would end after its {self._size:,} bytes; "
                "download it again",
            )
        self._at += count
        if self._at > MAX_HEADER:
            raise refuse(self._path, f"has more than {MAX_HEADER:,} bytes of metadata, at {self._where}")
        data = self._file.read(count)
        if len(data) < count:  # it has become shorter since it was opened
            raise refuse(self._path, "was truncated while it was read")
        return data

    def _numbers(self, code: str, count: int) -> tuple[int | float | bool, ...]:
        layout = f"<{count}{code}"
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))

    def _integer(self, code: str) -> int:
        return int(self._numbers(code, 1)[0])

    def _count(self, what: str, limit: int) -> int:
        count = self._integer("Q")
        if count > limit:
            raise refuse(self._path, f"is damaged: {count:,} {what}; at most {limit:,} are supported")
        return count

    def _text(self, length: int) -> str:
        data = self._bytes(length)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise refuse(self._path, f"is damaged: {self._where} has text that is not UTF-8") from None

    def _string(self) -> str:
        return self._text(self._integer("Q"))

    def _name(self) -> str:
        self._where = f"the name after {self._where}"
        return self._text(self._count(f"bytes in {self._where}", MAX_NAME))

    def _pair(self) -> tuple[str, Value]:
        key = self._name()
        self._where = f"the metadata key {key!r}"
        return key, self._value(self._integer("I"))

    def _value(self, kind: int) -> Value:
        if kind in SCALARS:
            return self._numbers(SCALARS[kind], 1)[0]
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            return self._array(self._integer("I"))
        raise refuse(self._path, f"is damaged: {self._where} has the unknown type {kind}")

    def _array(self, kind: int) -> Sequence[Value]:
        count = self._count(f"elements in {self._where}", MAX_ARRAY)
        if kind in SCALARS:
            return self._numbers(SCALARS[kind], count)
        if kind == STRING:
            return [self._string() for _ in range(count)]
        raise refuse(self._path, f"has an array of type {kind} in {self._where}; only numbers and text are")

    def _tensor_info(self) -> TensorInfo:
        name = self._name()
        self._where = f"the tensor {name!r}"
        dimensions = self._integer("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise refuse(self._path, f"is damaged: {self._where} has {dimensions} dimensions, not 1 to 4")
        shape = tuple(int(size) for size in reversed(self._numbers("Q", dimensions)))
        kind = self._kind(self._integer("I"))
        if 0 in shape or shape[-1] % kind.elements:
            raise refuse(
                self._path,
                f"is damaged: {self._where} has the shape {list(shape)}, but rows of {kind.name} have a "
                f"multiple of {kind.elements} elements",
            )
        return TensorInfo(name, shape, kind, self._path, self._integer("Q"))

    def _kind(self, number: int) -> BlockType:
        kind = BLOCK_TYPES.get(number)
        if kind is None:
            name = OTHER_TYPES.get(number, f"number {number}")
            raise refuse(self._path, f"has {self._where} of type {name}; supported are {_TYPE_NAMES}")
        return kind

    def _data_start(self, metadata: Mapping[str, Value]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 8 <= alignment <= MAX_ALIGNMENT or alignment % 8:
            raise refuse(
                self._path,
                f"has general.alignment {alignment!r}; it must be a multiple of 8 up to {MAX_ALIGNMENT:,}",
            )
        return -(-self._at // alignment) * alignment

    def _placed(self, info: TensorInfo, start: int) -> TensorInfo:
        """The tensor with its offset in the file, which must have all its bytes."""
        if info.offset % 8:
            raise refuse(self._path, f"is damaged: the data of the tensor {info.name!r} is not aligned")
        placed = replace(info, offset=start + info.offset)
        end = placed.offset + placed.nbytes
        if end > self._size:
            raise refuse(
                self._path,
                f"is truncated or damaged: it has {self._size:,} bytes, but the tensor {info.name!r} ends at "
                f"{end:,}; download it again",
            )
        return placed
