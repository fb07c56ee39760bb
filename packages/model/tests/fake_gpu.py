"""A GPU that holds no numbers: PyTorch runs every operation on shapes and devices alone.

Values that come back to the host, sizes that depend on them, and operands on two devices are errors there.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gemma_model.weights import safetensors_files

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
MOVES = ("aten.to.", "aten._to_copy.", "aten.copy_.", "aten.lift_fresh.")


Fine = Literal["nothing", "moves without waiting", "moves"]


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what touches the host.

    A real GPU takes indices from the host as well, each time with a copy that waits for all that came before.
    """

    def __init__(self, fine: Fine) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fine, self.seen = fine, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs))
        if any(isinstance(x, torch.device) and x.type == "cuda" for x in leaves):
            for x in leaves:
                if isinstance(x, FakeTensor):
                    x.constant = None  # else what is known would be moved for real, where there is no GPU
        given = func(*args, **(kwargs or {}))
        name, tensors = str(func), [x for x in (*leaves, *tree_leaves(given)) if isinstance(x, Tensor)]
        moves = name.startswith(MOVES)
        devices = {x.device.type for x in tensors if x.dim() or moves}  # numbers may come from anywhere
        waits = not any(x is True for x in leaves)  # non_blocking
        allowed = self._fine == "moves" or (self._fine == "moves without waiting" and not waits)
        if len(devices) > 1 and not (moves and allowed):
            self._note(name)
        elif devices == {"cpu"} and self._fine == "nothing":
            self._note(f"{name} on the host")
        return given

    def _note(self, what: str) -> None:
        ours = [x for x in traceback.extract_stack() if "gemma_model" in x.filename]
        self.seen.add(f"{what} in {ours[-1].filename}:{ours[-1].lineno}" if ours else what)


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``cuda`` is there, in a way; lists made of its tensors hold zeros."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(FakeTensor, "tolist", lambda self: _zeros(list(self.shape)))
    monkeypatch.setattr(safetensors_files, "load_tensor", _empty)
    monkeypatch.setattr(torch.utils, "swap_tensors", _already_there)  # when a module's parameters move
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        yield


def _empty(opened: Any, key: str) -> Tensor:
    """Of the shape and dtype of a tensor in a file."""
    entry = opened.get_slice(key)
    return torch.empty(entry.get_shape(), dtype=DTYPES[entry.get_dtype()])


def _already_there(parameter: Tensor, moved: Tensor) -> None:
    assert (parameter.device, parameter.dtype) == (moved.device, moved.dtype)


def _zeros(shape: list[int]) -> Any:
    return [_zeros(shape[1:]) for _ in range(shape[0])] if shape else 0


@contextmanager
def watched(fine: Fine) -> Iterator[None]:
    """Nothing in it mixes devices, and between them only moves what may."""
    with Watch(fine) as watch:
        yield
    assert not watch.seen, sorted(watch.seen)
