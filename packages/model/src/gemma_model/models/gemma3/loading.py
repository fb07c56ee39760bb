"""Loads a Gemma 3 checkpoint: its text decoder. The vision tower of 4B and larger models is not supported."""

from collections.abc import Mapping
from typing import Any

from gemma_model.cpu.kernels import LANES
from gemma_model.models.gemma3.config import Gemma3DecoderConfig
from gemma_model.models.gemma3.decoder import Gemma3Decoder
from gemma_model.models.model import LoadedModel
from gemma_model.settings import Settings
from gemma_model.weights import Weights

VISION_PARTS = ("vision_tower", "multi_modal_projector")


def supports_cpu_kernels(config: Mapping[str, Any]) -> bool:
    """Whether the C++ kernels can multiply with all matrices: they read complete vectors."""
    text = Gemma3DecoderConfig.read(config)
    widths = (text.hidden_size, text.intermediate_size, text.num_attention_heads * text.head_dim)
    return all(width % LANES == 0 for width in widths)


def load(config: Mapping[str, Any], settings: Settings, weights: Weights) -> LoadedModel:  # noqa: ARG001
    """Make the model; see ``gemma_model.models.loader.Loader``."""
    text = Gemma3DecoderConfig.read(config)
    decoder = Gemma3Decoder(text, weights)
    for part in VISION_PARTS:
        weights.skip_prefix(f"{part}.", "text only: images are not supported for Gemma 3")
    return LoadedModel(
        model=decoder,
        nested={},
        encoders=None,
        host_table=None,
        max_length=text.max_position_embeddings,
        weight_bytes=weights.taken_bytes,
        quantization=weights.quantization,
    )
