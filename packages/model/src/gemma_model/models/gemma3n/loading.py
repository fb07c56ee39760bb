"""Loads a Gemma 3n checkpoint: the decoder, its towers and its nested models."""

from collections.abc import Mapping
from typing import Any, Final

import torch

from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.cpu_layers import supports
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.models.gemma3n.nested_models import served_nested_models
from gemma_model.models.model import Encoders, LoadedModel
from gemma_model.settings import Settings
from gemma_model.weights import Weights
from gemma_wire.tensor_names import TOWER_PARTS

MODALITIES: Final = {
    "vision_config": ("vision_tower", "embed_vision"),
    "audio_config": ("audio_tower", "embed_audio"),
}
"""Sections of ``config.json``, and the parts of the checkpoint that they describe."""


def supports_cpu_kernels(config: Mapping[str, Any]) -> bool:
    """Whether the C++ kernels can run the decoder."""
    return supports(Gemma3nDecoderConfig.read(config))


def load(config: Mapping[str, Any], settings: Settings, weights: Weights) -> LoadedModel:
    """Make the model; see ``gemma_model.models.loader.Loader``."""
    text, nested = Gemma3nDecoderConfig.read(config), served_nested_models(config, settings)
    decoder = Gemma3nDecoder(text, weights, table_on_device=settings.ple == "device")
    encoders = _encoders(config, settings, weights, decoder)
    return LoadedModel(
        model=decoder,
        nested={name: decoder.nested(part) for name, part in nested.items()},
        encoders=encoders,
        host_table=None if settings.ple == "device" else decoder.embed_tokens_per_layer,
        max_length=text.max_position_embeddings,
        weight_bytes=weights.taken_bytes,
        quantization=weights.quantization,
    )


def _encoders(
    config: Mapping[str, Any], settings: Settings, weights: Weights, decoder: Gemma3nDecoder
) -> Encoders | None:
    if settings.towers == "none":
        for part in TOWER_PARTS:
            weights.skip_prefix(f"{part}.", "GEMMA_TOWERS=none")
        return None
    for section, parts in MODALITIES.items():
        for part in parts if not config.get(section) else ():
            weights.skip_prefix(f"{part}.", f"config.json has no {section}")
    if not any(config.get(section) for section in MODALITIES):
        return None
    from gemma_model.models.gemma3n.towers import Towers  # noqa: PLC0415 - imports transformers

    towers = Towers(config, weights, decoder.embed_tokens.weight.device, decoder.dtype)
    with torch.inference_mode():
        decoder.embed_tokens.set_hard_embeddings(*towers.hard_embeddings())
    return towers
