"""Validates a checkpoint before anything is started. Only headers are read, no weights."""

import json
from math import prod
from pathlib import Path
from typing import Any, Final

from gemma_launcher.checkpoints import gguf
from gemma_launcher.errors import CommandError
from gemma_wire import InvalidRequest
from gemma_wire.quantization import QuantizationConfig

MODEL_TYPES: Final = ("gemma3", "gemma3_text", "gemma3n", "gemma3n_text")
"""The supported values of ``model_type``. Add new architectures here, and to ``gemma_model/families.py``."""

_GIT_LFS_POINTER = b"version https://git-lfs"


def validate_checkpoint(folder: Path) -> None:
    """Checks that the checkpoint is complete and supported.

    Raises:
        CommandError: it is not; the message names the file and the problem.
    """
    try:
        if not folder.is_dir():
            raise CommandError("there is no such folder")
        read_config(folder / "config.json")
        _check_file(folder / "tokenizer.json")
        _validate_weights(folder)
    except OSError as error:
        detail = f"{Path(error.filename or folder).name}: {error.strerror or error}"
        raise CommandError(f"the checkpoint {folder} cannot be read: {detail}") from None
    except CommandError as error:
        raise CommandError(f"the checkpoint {folder} cannot be served: {error}") from None


def read_config(path: Path) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        CommandError: it is missing, or not that of a supported model.
    """
    _check_file(path)
    config = _read_json(path)
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        supported = ", ".join(MODEL_TYPES)
        raise CommandError(f'config.json has model_type "{model_type}", but only {supported} are supported')
    try:
        QuantizationConfig.read(config)
    except InvalidRequest as error:
        raise CommandError(f"config.json: {error.field}: {error.message}") from None
    return config


def tensor_sizes(path: Path) -> dict[str, int]:
    """The number of elements of each tensor in a safetensors file.

    Raises:
        CommandError: the file is missing, truncated or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - imports numpy

    _check_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CommandError(f"{path.name} is incomplete or damaged ({error}); download it again") from None


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise CommandError(f"{path.name} is missing")
    with path.open("rb") as file:
        if file.read(len(_GIT_LFS_POINTER)) == _GIT_LFS_POINTER:
            raise CommandError(f"{path.name} is a git-lfs pointer; run `git lfs pull` in that folder")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise CommandError(f"{path.name} is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise CommandError(f"{path.name} is not a JSON object")
    return value


def _validate_weights(folder: Path) -> None:
    """Checks ``model.safetensors``, all shards of the index, or GGUF files."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        tensor_sizes(single)
    elif index.is_file():
        _validate_shards(folder, _read_json(index).get("weight_map"))
    elif gguf.referenced_files(folder):
        gguf.validate(folder)
    else:
        raise CommandError(
            "there are no weights: neither model.safetensors, model.safetensors.index.json nor a .gguf file"
        )


def _validate_shards(folder: Path, weight_map: Any) -> None:
    if not isinstance(weight_map, dict) or not weight_map:
        raise CommandError("model.safetensors.index.json has no weight_map")
    expected: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        expected.setdefault(str(shard), set()).add(tensor)
    for shard, names in sorted(expected.items()):
        if missing := names - tensor_sizes(folder / shard).keys():
            raise CommandError(f"{shard} lacks {len(missing)} tensors of the index, such as {min(missing)}")
