"""Which device and dtype, what to call them, and how things get there."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gemma_wire import InvalidRequest

STORED = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.bfloat16}


def pick(name: str) -> torch.device:
    """``auto``: the first GPU when there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def describe(device: torch.device) -> str:
    """``cuda (NVIDIA H200)`` or ``cpu (2 threads)``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def moved(host: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device; nobody waits for what a GPU has yet to do before it arrives."""
    if device.type == "cuda" and host.device.type == "cpu":
        return host.pin_memory().to(device, non_blocking=True)  # pinned memory is kept until it was read
    return host.to(device)


def dtype_of(name: str, config: Mapping[str, Any]) -> torch.dtype:
    """As asked, or as stored; what is stored in fp16 runs in bf16."""
    stored = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    dtype = STORED.get(stored if name == "auto" else name)
    if dtype is None:
        raise InvalidRequest(f"{stored!r} is not supported, only {' and '.join(STORED)} are", "config.dtype")
    return dtype
