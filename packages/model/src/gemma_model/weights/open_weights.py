"""Opens the weights of a checkpoint, in whichever format they are."""

from pathlib import Path

import torch

from gemma_model.checkpoint import read_config
from gemma_model.weights.compressed_tensors import open_compressed_tensors
from gemma_model.weights.named_weights import Weights
from gemma_model.weights.quantization_recipe import Recipe
from gemma_model.weights.quantized_at_load import quantized_at_load
from gemma_model.weights.safetensors_files import open_safetensors
from gemma_model.weights.stored_tensor import StoredTensor
from gemma_wire import InvalidRequest
from gemma_wire.quantization import QuantizationConfig


def open_weights(
    folder: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    cpu_kernels: bool = False,
    recipe: Recipe | None = None,
) -> Weights:
    """Weights of a folder: ``model.safetensors``, or the shards of ``model.safetensors.index.json``.

    Args:
        folder: of the checkpoint.
        device: see ``Weights``.
        dtype: see ``Weights``.
        cpu_kernels: see ``Weights``.
        recipe: what is quantised when it is loaded.

    Raises:
        InvalidRequest: when a file is missing or is not what the index or the configuration says, or when
            weights that are quantised already should be quantised.
    """
    return Weights(open_folder(folder, recipe), device, dtype, cpu_kernels)


def open_folder(folder: Path, recipe: Recipe | None = None) -> dict[str, StoredTensor]:
    """The tensors of a folder by their names, as they are or quantised.

    Raises:
        InvalidRequest: as ``open_weights``.
    """
    has_config = (folder / "config.json").is_file()
    quantization = QuantizationConfig.read(read_config(folder)) if has_config else None
    if quantization is None:
        stored = open_safetensors(folder)
        return stored if recipe is None else quantized_at_load(stored, recipe)
    check_not_quantized(quantization, recipe)
    return open_compressed_tensors(folder, quantization)


def check_not_quantized(quantization: QuantizationConfig, recipe: Recipe | None) -> None:
    """Check that a quantised checkpoint is not to be quantised once more.

    Raises:
        InvalidRequest: it is.
    """
    if recipe is not None:
        names = " and ".join(dict.fromkeys(scheme.name for scheme in quantization.schemes.values()))
        raise InvalidRequest(f"the checkpoint is quantised already: {names}", "quantize")
