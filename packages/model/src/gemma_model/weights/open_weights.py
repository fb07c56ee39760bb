"""Opens the weights of a checkpoint, in whichever format they are."""

from collections.abc import Iterable
from pathlib import Path

import torch

from gemma_model.checkpoint import read_config
from gemma_model.weights.compressed_tensors import open_compressed_tensors
from gemma_model.weights.gguf_blocks import DENSE
from gemma_model.weights.gguf_file import open_gguf, open_mmproj
from gemma_model.weights.gpu_products import GpuProducts
from gemma_model.weights.named_weights import Weights
from gemma_model.weights.quantization_recipe import Recipe
from gemma_model.weights.quantized_at_load import quantized_at_load
from gemma_model.weights.safetensors_files import open_safetensors
from gemma_model.weights.stored_tensor import StoredTensor
from gemma_wire import InvalidRequest
from gemma_wire.gguf import GGUF, read_gguf
from gemma_wire.gguf_sources import read_reference
from gemma_wire.quantization import QuantizationConfig
from gemma_wire.tensor_names import TOWER_PARTS, bare_name


def open_weights(
    folder: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    cpu_kernels: bool = False,
    recipe: Recipe | None = None,
    gpu_products: GpuProducts | None = None,
) -> Weights:
    """Weights of a folder.

    They are in ``model.safetensors``, in the shards of ``model.safetensors.index.json``, or in the GGUF files
    that a folder made by ``gguf_checkpoint`` names.

    Args:
        folder: of the checkpoint.
        device: see ``Weights``.
        dtype: see ``Weights``.
        cpu_kernels: see ``Weights``.
        recipe: what is quantised when it is loaded.
        gpu_products: see ``Weights``.

    Raises:
        InvalidRequest: when a file is missing or is not what the index or the configuration says, or when
            weights that are quantised already should be quantised.
    """
    return Weights(open_folder(folder, recipe), device, dtype, cpu_kernels, gpu_products)


def open_folder(folder: Path, recipe: Recipe | None = None) -> dict[str, StoredTensor]:
    """The tensors of a folder by their names, as they are or quantised.

    Raises:
        InvalidRequest: as ``open_weights``.
    """
    files, encoders = read_reference(folder)
    if files:
        return _open_gguf(read_gguf(files[0]), recipe) | _open_encoders(encoders)
    has_config = (folder / "config.json").is_file()
    quantization = QuantizationConfig.read(read_config(folder)) if has_config else None
    if quantization is None:
        stored = open_safetensors(folder)
        return stored if recipe is None else quantized_at_load(stored, recipe)
    check_not_quantized((scheme.name for scheme in quantization.schemes.values()), recipe)
    return open_compressed_tensors(folder, quantization)


def _open_gguf(model: GGUF, recipe: Recipe | None) -> dict[str, StoredTensor]:
    stored = open_gguf(model)
    kinds = sorted({info.kind.name for info in model.tensors.values()} - DENSE.keys())
    if kinds:
        check_not_quantized(kinds, recipe)
    return stored if recipe is None else quantized_at_load(stored, recipe)


def _open_encoders(path: Path | None) -> dict[str, StoredTensor]:
    """The tensors of an ``mmproj`` file, or those of a checkpoint beside those of its text model."""
    if path is not None and path.suffix == ".gguf":
        return open_mmproj(read_gguf(path))
    stored = {} if path is None else open_folder(path)
    return {key: tensor for key, tensor in stored.items() if bare_name(key).startswith(TOWER_PARTS)}


def check_not_quantized(formats: Iterable[str], recipe: Recipe | None) -> None:
    """Check that a quantised checkpoint is not to be quantised once more.

    Args:
        formats: those of the checkpoint.
        recipe: what should be quantised.

    Raises:
        InvalidRequest: it is.
    """
    if recipe is not None:
        names = " and ".join(dict.fromkeys(formats))
        raise InvalidRequest(f"the checkpoint is quantised already: {names}", "quantize")
