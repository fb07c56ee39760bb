"""The tensors of a checkpoint by name. Each is taken exactly once, or skipped with a reason.

transformers writes and reads several layouts of the same model. Here a name is what remains without its
wrappers: ``layers.0.…``, ``embed_tokens.weight``, ``vision_tower.…``, ``embed_audio.…``:

    model.language_model.layers.0.…   the published files, and what Gemma3nForConditionalGeneration writes
    language_model.model.layers.0.…   files of before the wrappers were swapped
    model.layers.0.…                  what Gemma3nForCausalLM writes, text alone
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gemma_model.cpu.kernels import is_finite
from gemma_wire import InvalidRequest

WRAPPERS = ("model.", "language_model.", "model.")  # in this order, each at most once
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Loader = Callable[[], Tensor]


class Weights:
    """Named tensors, and which of them were used.

    Args:
        loaders: functions that load each tensor, by the name in the checkpoint.
        device: of taken tensors.
        dtype: of taken tensors; ``None``: as stored.
        cpu_kernels: whether layers with these weights use the C++ kernels, which must be loaded.
    """

    def __init__(
        self,
        loaders: Mapping[str, Loader],
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        cpu_kernels: bool = False,
    ) -> None:
        self.cpu_kernels = cpu_kernels
        self._remaining = {bare_name(key): (key, loader) for key, loader in loaders.items()}
        self._device, self._dtype = torch.device(device), dtype
        self.unused: dict[str, str] = {}
        self.taken_bytes = 0  # on the device; what stays in the file does not count
        if len(self._remaining) != len(loaders):
            raise InvalidRequest("has the same tensor in two layouts", "MODEL_NAME")

    def __contains__(self, name: str) -> bool:
        return name in self._remaining

    def take(self, name: str) -> Tensor:
        """A copy of the tensor of that name, on the device and in the dtype of this object.

        Raises:
            InvalidRequest: when the checkpoint does not have it, it was taken before, or it has infinity or
                NaN.
        """
        taken = self.take_mapped(name).to(self._device, self._dtype, copy=True)
        if not taken.is_meta and not is_finite([taken]):
            raise InvalidRequest(f"the checkpoint's tensor {name!r} has infinity or NaN", "MODEL_NAME")
        self.taken_bytes += taken.nbytes
        return taken

    def take_mapped(self, name: str) -> Tensor:
        """The tensor as stored: on the host, memory-mapped from the file."""
        if name not in self._remaining:
            raise InvalidRequest(
                f"the checkpoint has no tensor {name!r}, or it was taken twice", "MODEL_NAME"
            )
        return self._remaining.pop(name)[1]()

    def take_prefix(self, prefix: str) -> dict[str, Tensor]:
        """All tensors whose names begin with ``prefix``, by the rest of their names."""
        names = [name for name in self._remaining if name.startswith(prefix)]
        return {name.removeprefix(prefix): self.take(name) for name in names}

    def skip(self, names: Iterable[str], reason: str) -> None:
        """Mark those tensors as unused that exist, with the reason."""
        for name in names:
            if name in self._remaining:
                self.unused[self._remaining.pop(name)[0]] = reason

    def skip_prefix(self, prefix: str, reason: str) -> None:
        """Mark all tensors whose names begin with ``prefix`` as unused, with the reason."""
        self.skip([name for name in self._remaining if name.startswith(prefix)], reason)

    def check_all_used(self) -> None:
        """Check that no tensor remains.

        Raises:
            InvalidRequest: naming tensors that were neither taken nor skipped; the model would not be that of
                the checkpoint.
        """
        if self._remaining:
            some = ", ".join(sorted(key for key, _ in self._remaining.values())[:5])
            raise InvalidRequest(
                f"the checkpoint has {len(self._remaining)} unknown tensors: {some}", "MODEL_NAME"
            )


def open_weights(
    folder: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    cpu_kernels: bool = False,
) -> Weights:
    """Weights of a folder: ``model.safetensors``, or the shards of ``model.safetensors.index.json``.

    Raises:
        InvalidRequest: when a file is missing or is not what the index says.
    """
    loaders: dict[str, Loader] = {}
    for file, keys in _files(folder).items():
        loaders |= _loaders(file, keys)
    return Weights(loaders, device, dtype, cpu_kernels)


def bare_name(key: str) -> str:
    """``model.language_model.norm.weight`` → ``norm.weight``; every layout gives the same."""
    for wrapper in WRAPPERS:
        key = key.removeprefix(wrapper)
    return key


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


def _loaders(file: Path, expected: set[str] | None) -> dict[str, Loader]:
    """A loader for each tensor of a file; the tensors are memory-mapped, not copied."""
    try:
        opened: Any = safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InvalidRequest(f"cannot read {file}: {error}", "MODEL_NAME") from None
    keys = set(opened.keys())
    if expected is not None and keys != expected:
        wrong = ", ".join(sorted(keys ^ expected)[:5])
        raise InvalidRequest(f"{file} does not match its index: {wrong}", "MODEL_NAME")
    return {key: partial(_load, opened, key) for key in keys}


def _load(opened: Any, key: str) -> Tensor:
    tensor: Tensor = opened.get_tensor(key)
    if tensor.dtype not in DTYPES:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise InvalidRequest(
            f"{key} is {dtype}; only float32, float16 and bfloat16 are supported", "MODEL_NAME"
        )
    return tensor
