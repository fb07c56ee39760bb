"""Chooses the device and the dtype, and moves tensors to the device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gemma_wire import InvalidRequest

STORED = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto``: the first GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """A name for people, such as ``cuda (NVIDIA H200)`` or ``cpu (2 threads)``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to a device, without waiting for a GPU."""
    if device.type == "cuda" and host.device.type == "cpu":
        return host.pin_memory().to(device, non_blocking=True)  # pinned memory is kept until the copy is done
    return host.to(device)


def resolve_dtype(name: str, config: Mapping[str, Any]) -> torch.dtype:
    """The dtype of the computation; fp16 weights run in bf16.

    Args:
        name: a dtype, or ``auto`` for that of the checkpoint.
        config: ``config.json`` of the checkpoint.

    Raises:
        InvalidRequest: when the dtype is not supported.
    """
    stored = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    dtype = STORED.get(stored if name == "auto" else name)
    if dtype is None:
        raise InvalidRequest(f"{stored!r} is not supported, only {' and '.join(STORED)} are", "config.dtype")
    return dtype
