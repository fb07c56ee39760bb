"""Opens the weights of a checkpoint, in whichever format they are."""

from pathlib import Path

import torch

from gemma_model.checkpoint import read_config
from gemma_model.weights.compressed_tensors import open_compressed_tensors
from gemma_model.weights.named_weights import Weights
from gemma_model.weights.safetensors_files import open_safetensors
from gemma_model.weights.stored_tensor import StoredTensor
from gemma_wire.quantization import QuantizationConfig


def open_weights(
    folder: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    cpu_kernels: bool = False,
) -> Weights:
    """Weights of a folder: ``model.safetensors``, or the shards of ``model.safetensors.index.json``.

    Raises:
        InvalidRequest: when a file is missing or is not what the index or the configuration says.
    """
    return Weights(open_folder(folder), device, dtype, cpu_kernels)


def open_folder(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder by their names, as they are or quantised.

    Raises:
        InvalidRequest: as ``open_weights``.
    """
    has_config = (folder / "config.json").is_file()
    quantization = QuantizationConfig.read(read_config(folder)) if has_config else None
    return open_compressed_tensors(folder, quantization) if quantization else open_safetensors(folder)
