"""Which device, what to call it, and how things get there."""

import torch
from torch import Tensor


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
