"""Loads a Gemma 3n checkpoint: the decoder, its towers and its nested models."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gemma_model.cpu import kernels
from gemma_model.models.gemma3n.config import TOWER_PARTS, TextConfig
from gemma_model.models.gemma3n.cpu_layers import supports
from gemma_model.models.gemma3n.decoder import Decoder
from gemma_model.models.gemma3n.nested_models import served_nested_models
from gemma_model.models.model import Encoders, LoadedModel
from gemma_model.settings import Settings
from gemma_model.weights import Weights, open_weights
from gemma_model.weights.quantization_recipe import BITS, Recipe
from gemma_wire import InvalidRequest

log = logging.getLogger(__name__)


def load(
    folder: Path, config: Mapping[str, Any], settings: Settings, device: torch.device, dtype: torch.dtype
) -> LoadedModel:
    """Load the checkpoint of a folder.

    Args:
        folder: of the checkpoint.
        config: its ``config.json``.
        settings: of the model.
        device: of the weights.
        dtype: of the weights.

    Raises:
        InvalidRequest: when the checkpoint or a setting is not supported.
    """
    text = TextConfig.read(config)
    limit = text.max_position_embeddings
    if settings.max_model_len is not None and settings.max_model_len > limit:
        raise InvalidRequest(
            f"{settings.max_model_len} is more than the checkpoint's {limit} tokens", "max_model_len"
        )
    nested = served_nested_models(config, settings)
    wanted = settings.compile == "auto" and device.type == "cpu" and supports(text)
    cpu_kernels = wanted and kernels.load()
    weights = open_weights(folder, device, dtype, cpu_kernels, _recipe(settings))
    decoder = Decoder(text, weights, table_on_device=settings.ple == "device")
    encoders = _encoders(config, settings, weights, decoder, device, dtype)
    weights.check_all_used()
    for key, reason in weights.unused.items():
        log.debug("%s is not used: %s", key, reason)
    return LoadedModel(
        model=decoder,
        nested={name: decoder.nested(part) for name, part in nested.items()},
        encoders=encoders,
        host_table=None if settings.ple == "device" else decoder.embed_tokens_per_layer,
        max_length=limit,
        weight_bytes=weights.taken_bytes,
    )


def _recipe(settings: Settings) -> Recipe | None:
    """What is quantised while the checkpoint is loaded; not a table that stays in the file."""
    if settings.quantize == "none":
        return None
    return Recipe(BITS[settings.quantize], per_layer_table=8 if settings.ple == "device" else None)


def _encoders(
    config: Mapping[str, Any],
    settings: Settings,
    weights: Weights,
    decoder: Decoder,
    device: torch.device,
    dtype: torch.dtype,
) -> Encoders | None:
    if settings.towers == "none":
        for part in TOWER_PARTS:
            weights.skip_prefix(f"{part}.", "GEMMA_TOWERS=none")
        return None
    if "text_config" not in config:
        return None
    from gemma_model.models.gemma3n.towers import Towers  # noqa: PLC0415 - imports transformers

    towers = Towers(config, weights, device, dtype)
    with torch.inference_mode():
        decoder.embed_tokens.set_hard_embeddings(*towers.hard_embeddings())
    return towers
