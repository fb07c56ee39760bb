"""Loads the model of a checkpoint, by the code of its family."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gemma_model.checkpoint import integer, read_config, text_part
from gemma_model.cpu import kernels
from gemma_model.device import resolve_dtype
from gemma_model.families import GEMMA3, GEMMA3N, Family, family_of
from gemma_model.models.gemma3 import loading as gemma3
from gemma_model.models.gemma3n import loading as gemma3n
from gemma_model.models.model import LoadedModel
from gemma_model.settings import Settings
from gemma_model.weights import Weights, open_weights
from gemma_model.weights.gpu_products import GpuProducts
from gemma_model.weights.quantization_recipe import BITS, Recipe
from gemma_wire import InvalidRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loader:
    """The code of a family.

    Args:
        supports_cpu_kernels: whether the C++ kernels can run the model of a ``config.json``, all of which it
            checks.
        load: makes a model from ``config.json``, the settings and the weights; it takes or skips each tensor.
    """

    supports_cpu_kernels: Callable[[Mapping[str, Any]], bool]
    load: Callable[[Mapping[str, Any], Settings, Weights], LoadedModel]


LOADERS: Mapping[Family, Loader] = {
    GEMMA3: Loader(gemma3.supports_cpu_kernels, gemma3.load),
    GEMMA3N: Loader(gemma3n.supports_cpu_kernels, gemma3n.load),
}


def load_model(folder: Path, settings: Settings, device: torch.device) -> LoadedModel:
    """Load the checkpoint of a folder onto a device.

    Raises:
        InvalidRequest: when the checkpoint or a setting is not supported.
    """
    config = read_config(folder)
    family = family_of(config)
    _check_length(config, family, settings)
    loader = LOADERS[family]
    wanted = loader.supports_cpu_kernels(config) and settings.compile == "auto" and device.type == "cpu"
    cpu_kernels = wanted and kernels.load()
    dtype = resolve_dtype(settings.dtype, config)
    gpu_products = GpuProducts() if device.type == "cuda" and settings.compile == "auto" else None
    weights = open_weights(folder, device, dtype, cpu_kernels, _recipe(settings), gpu_products)
    loaded = loader.load(config, settings, weights)
    weights.check_all_used()
    for key, reason in weights.unused.items():
        log.debug("%s is not used: %s", key, reason)
    return loaded


def _recipe(settings: Settings) -> Recipe | None:
    """What is quantised while the checkpoint is loaded; not a table that stays in the file."""
    if settings.quantize == "none":
        return None
    return Recipe(BITS[settings.quantize], per_layer_table=8 if settings.ple == "device" else None)


def _check_length(config: Mapping[str, Any], family: Family, settings: Settings) -> None:
    limit = integer(text_part(config), "max_position_embeddings", family.max_position_embeddings)
    if settings.max_model_len is not None and settings.max_model_len > limit:
        raise InvalidRequest(
            f"{settings.max_model_len} is more than the checkpoint's {limit} tokens", "max_model_len"
        )
