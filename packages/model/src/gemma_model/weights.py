"""The checkpoint's tensors by their own names, each handed out exactly once.

transformers writes and reads several layouts of the same model. Here a name is what remains without its
wrappers: ``layers.0.…``, ``embed_tokens.weight``, ``vision_tower.…``, ``embed_audio.…``:

    model.language_model.layers.0.…   the published files, and what Gemma3nForConditionalGeneration writes
    language_model.model.layers.0.…   files of before the wrappers were swapped
    model.layers.0.…                  what Gemma3nForCausalLM writes, text alone
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemma_model.cpu.kernels import is_finite
from gemma_wire import InvalidRequest

WRAPPERS = ("model.", "language_model.", "model.")  # in this order, each at most once
TOWER_PARTS = ("vision_tower", "audio_tower", "embed_vision", "embed_audio")
"""What a checkpoint holds beside its text decoder."""
HEADER_LIMIT = 100_000_000  # bytes, the format's own
DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
Loader = Callable[[], Tensor]


class Weights:
    """Named tensors that keep account of who took what.

    Args:
        loaders: what brings each tensor, by the checkpoint's own name.
        device: where taken tensors go.
        dtype: what taken tensors become; ``None``: as stored.
        compiled: whether those who take them shall use the CPU's kernels, which must be loaded.
    """

    def __init__(
        self,
        loaders: Mapping[str, Loader],
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        self.compiled = compiled
        self._left = {bare_name(key): (key, loader) for key, loader in loaders.items()}
        self._device, self._dtype = torch.device(device), dtype
        self.unused: dict[str, str] = {}
        self.taken_bytes = 0  # on the device; what stays in the file does not count
        if len(self._left) != len(loaders):
            raise InvalidRequest("holds two tensors of one name in different layouts", "MODEL_NAME")

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str) -> Tensor:
        """A copy of the tensor of that name, on the device and in the dtype of this object.

        Raises:
            InvalidRequest: when the checkpoint lacks it, it was taken before, or it holds infinity or NaN.
        """
        taken = self.take_mapped(name).to(self._device, self._dtype, copy=True)
        if not taken.is_meta and not is_finite([taken], self.compiled):
            raise InvalidRequest(f"the checkpoint's tensor {name!r} holds infinity or NaN", "MODEL_NAME")
        self.taken_bytes += taken.nbytes
        return taken

    def take_mapped(self, name: str) -> Tensor:
        """The tensor as stored: on the host, memory-mapped from the file."""
        if name not in self._left:
            raise InvalidRequest(
                f"the checkpoint has no tensor {name!r}, or it was asked for twice", "MODEL_NAME"
            )
        return self._left.pop(name)[1]()

    def take_under(self, prefix: str) -> dict[str, Tensor]:
        """All tensors whose names begin with ``prefix``, by the rest of their names."""
        names = [name for name in self._left if name.startswith(prefix)]
        return {name.removeprefix(prefix): self.take(name) for name in names}

    def leave(self, names: Iterable[str], reason: str) -> None:
        """Mark those of the tensors that are there as unused, with the reason."""
        for name in names:
            if name in self._left:
                self.unused[self._left.pop(name)[0]] = reason

    def leave_under(self, prefix: str, reason: str) -> None:
        """Mark all whose names begin with ``prefix`` as unused, with the reason."""
        self.leave([name for name in self._left if name.startswith(prefix)], reason)

    def close(self) -> None:
        """Make sure that nothing is left over.

        Raises:
            InvalidRequest: naming tensors that nobody took or left: the model would not be the checkpoint's.
        """
        if self._left:
            some = ", ".join(sorted(key for key, _ in self._left.values())[:5])
            raise InvalidRequest(
                f"the checkpoint has {len(self._left)} unknown tensors: {some}", "MODEL_NAME"
            )


def open_weights(
    folder: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    compiled: bool = False,
) -> Weights:
    """Weights of a folder: ``model.safetensors``, or the shards of ``model.safetensors.index.json``.

    Raises:
        InvalidRequest: when a file is missing or is not what the index says.
    """
    loaders: dict[str, Loader] = {}
    for file, keys in _files(folder).items():
        loaders |= _loaders(file, keys)
    return Weights(loaders, device, dtype, compiled)


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
    tensors, data_start = _header(file)
    if expected is not None and tensors.keys() != expected:
        wrong = ", ".join(sorted(tensors.keys() ^ expected)[:5])
        raise InvalidRequest(f"{file} does not hold what its index says: {wrong}", "MODEL_NAME")
    size = file.stat().st_size
    if any(data_start + entry["data_offsets"][1] > size for entry in tensors.values()):
        raise InvalidRequest(f"{file} is cut short: it has {size} bytes", "MODEL_NAME")
    mapped = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8)
    return {key: _loader(mapped, data_start, entry) for key, entry in tensors.items()}


def _header(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The tensors of a safetensors file, and the offset in bytes at which their data begins."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, HEADER_LIMIT)))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read {file}: {error}", "MODEL_NAME") from None
    return {key: entry for key, entry in header.items() if key != "__metadata__"}, 8 + length


def _loader(mapped: Tensor, data_start: int, entry: Mapping[str, Any]) -> Loader:
    """A view into the mapping (the library's own reader copies, and one table shall stay in the file)."""

    def load() -> Tensor:
        dtype = DTYPES.get(entry["dtype"])
        if dtype is None:
            raise InvalidRequest(f"{entry['dtype']} tensors are not supported", "MODEL_NAME")
        begin, end = entry["data_offsets"]
        return mapped[data_start + begin : data_start + end].view(dtype).view(entry["shape"])

    return load
