"""Can this folder be served? Looked at before anything starts: a few kilobytes are read, no weights."""

import json
from math import prod
from pathlib import Path
from typing import Any, Final

from gemma_launcher.errors import CannotStart

MODEL_TYPES: Final = frozenset({"gemma3n"})
"""``model_type`` of the checkpoints that are served. A new architecture gets its line here."""

_LFS = b"version https://git-lfs"
_HEADER_LIMIT = 100_000_000  # bytes; the safetensors format's own limit


def check(folder: Path) -> None:
    """Passes when the checkpoint is whole.

    Raises:
        CannotStart: naming the file and what is wrong with it.
    """
    try:
        if not folder.is_dir():
            raise CannotStart("there is no such folder")
        check_config(folder / "config.json")
        _present(folder / "tokenizer.json")
        _weights(folder)
    except OSError as error:
        detail = f"{Path(error.filename or folder).name}: {error.strerror or error}"
        raise CannotStart(f"the checkpoint {folder} cannot be read: {detail}") from None
    except CannotStart as error:
        raise CannotStart(f"the checkpoint {folder} cannot be served: {error}") from None


def check_config(path: Path) -> dict[str, Any]:
    """What ``config.json`` says, when it is that of a model we serve.

    Raises:
        CannotStart: as in ``check``.
    """
    _present(path)
    config = _json(path)
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        served = ", ".join(sorted(MODEL_TYPES))
        raise CannotStart(f'config.json has model_type "{model_type}", and only {served} is served')
    return config


def _present(path: Path) -> None:
    if not path.is_file():
        raise CannotStart(f"{path.name} is missing")
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise CannotStart(f"{path.name} is a git-lfs pointer, not the file; run `git lfs pull` there")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise CannotStart(f"{path.name} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise CannotStart(f"{path.name} is not a JSON object")
    return value


def _weights(folder: Path) -> None:
    """One ``model.safetensors``, or all the shards of an index, each whole."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        tensors(single)
    elif index.is_file():
        _shards(folder, _json(index).get("weight_map"))
    else:
        raise CannotStart("there are no weights: neither model.safetensors nor model.safetensors.index.json")


def _shards(folder: Path, weight_map: Any) -> None:
    if not isinstance(weight_map, dict) or not weight_map:
        raise CannotStart("model.safetensors.index.json has no weight_map")
    wanted: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        wanted.setdefault(str(shard), set()).add(tensor)
    for shard, names in sorted(wanted.items()):
        if missing := names - tensors(folder / shard):
            raise CannotStart(f"{shard} lacks {len(missing)} tensors of the index, such as {min(missing)}")


def sizes(path: Path) -> dict[str, int]:
    """The names in a safetensors file, and how many numbers each tensor has.

    Layout: 8 bytes, little endian, the header's length; the header, JSON; the data.

    Raises:
        CannotStart: the file is missing, truncated or no safetensors file.
    """
    return {name: prod(entry["shape"]) for name, entry in _entries(path).items()}


def tensors(path: Path) -> set[str]:
    """The names in a safetensors file, whose length must be what its header says.

    Raises:
        CannotStart: as in ``sizes``.
    """
    return set(_entries(path))


def _entries(path: Path) -> dict[str, Any]:
    _present(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > _HEADER_LIMIT:
            raise CannotStart(f"{path.name} is not a safetensors file")
        header = _header(path.name, file.read(length), length)
    expected = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size < expected:
        raise CannotStart(f"{path.name} is truncated: {size:,} of {expected:,} bytes; fetch it again")
    if size > expected:
        raise CannotStart(f"{path.name} is damaged: {size:,} bytes where its header says {expected:,}")
    return header


def _header(name: str, data: bytes, length: int) -> dict[str, Any]:
    if len(data) < length:
        raise CannotStart(f"{name} is truncated within its header; fetch it again")
    try:
        header = json.loads(data)
        header.pop("__metadata__", None)
        for entry in header.values():
            _, _ = (int(offset) for offset in entry["data_offsets"])
            prod(entry["shape"])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CannotStart(f"{name} is not a safetensors file: its header cannot be read") from None
    return dict(header)
