"""Opens the weights of a checkpoint, in whichever format they are."""

from pathlib import Path

import torch

from gemma_model.weights.named_weights import Weights
from gemma_model.weights.safetensors_files import open_safetensors


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
    return Weights(open_safetensors(folder), device, dtype, cpu_kernels)
