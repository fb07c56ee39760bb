"""The number of parameters of each part of a model, computed from its shape."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gemma_launcher.tools.memory_planner.model_shape import (
    AudioShape,
    Gemma3nTextShape,
    ModelShape,
    TextShape,
    VisionShape,
)

VISION_PARAMETERS: Final = {"mobilenetv5_300m_enc": 294_126_912}
"""Parameters of timm architectures. A tower with ``model_args`` can only be counted in the weights file."""


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters.

    Args:
        embeddings: token embeddings; the output head is the same tensor.
        layers: the decoder layers and the projections around them.
        per_layer_table: the per-layer embeddings.
        vision, audio: the towers with their embedders.
        unused: K and V projections of the KV-shared layers, which published checkpoints contain.
        matrices: kind of matrix → those of ``layers`` in matrices that can be quantised.
        vision_known: whether the vision tower could be counted; ``vision`` leaves it out otherwise.
    """

    embeddings: int
    layers: int
    per_layer_table: int
    vision: int
    audio: int
    unused: int
    matrices: Mapping[str, int]
    vision_known: bool = True

    @property
    def total(self) -> int:
        """All parameters of the published checkpoint."""
        return self.decoder + self.towers + self.per_layer_table + self.unused

    @property
    def decoder(self) -> int:
        """The parameters that are always on the device."""
        return self.embeddings + self.layers

    @property
    def towers(self) -> int:
        """The parameters for image and audio input."""
        return self.vision + self.audio


def count_parameters(shape: ModelShape, vision_tower: int | None = None) -> ParameterCounts:
    """Counts the parameters of each part.

    Args:
        shape: the model.
        vision_tower: the vision tower's parameters as counted in the weights, where these are present.
    """
    text, vision, audio = shape.text_config, shape.vision_config, shape.audio_config
    if vision_tower is None and vision and not vision.model_args:
        vision_tower = VISION_PARAMETERS.get(vision.architecture)
    matrices = _matrices(text)
    return ParameterCounts(
        embeddings=text.vocab_size * text.hidden_size,
        layers=matrices.total() + _vectors(text),
        per_layer_table=_per_layer_table(text),
        vision=(vision_tower or 0) + _embedder(vision, text) if vision else 0,
        audio=_audio_tower(audio) + _embedder(audio, text) if audio else 0,
        unused=(text.num_hidden_layers - len(text.kv_layer_types)) * _kv_projections(text),
        matrices=matrices,
        vision_known=vision is None or vision_tower is not None,
    )


def per_layer_row(text: TextShape) -> int:
    """Elements of the per-layer embeddings of one token."""
    if not isinstance(text, Gemma3nTextShape):
        return 0
    return text.num_hidden_layers * text.hidden_size_per_layer_input


def _per_layer_table(text: TextShape) -> int:
    rows = text.vocab_size_per_layer_input if isinstance(text, Gemma3nTextShape) else 0
    return rows * per_layer_row(text)


def _matrices(text: TextShape) -> Counter[str]:
    """The parameters of each kind of matrix in all layers and around them, except AltUp's small ones."""
    hidden, wide = text.hidden_size, text.num_attention_heads * text.head_dim
    narrow = len(text.kv_layer_types) * text.num_key_value_heads * text.head_dim
    neurons = sum(text.intermediate_size)
    common = {
        **dict.fromkeys(("q_proj", "o_proj"), text.num_hidden_layers * hidden * wide),
        **dict.fromkeys(("k_proj", "v_proj"), hidden * narrow),
        **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), hidden * neurons),
    }
    return Counter(common | (_gemma3n_matrices(text) if isinstance(text, Gemma3nTextShape) else {}))


def _gemma3n_matrices(text: Gemma3nTextShape) -> dict[str, int]:
    """What Gemma 3n has in addition."""
    each = text.num_hidden_layers * text.hidden_size  # a column in each layer
    per_layer = each * text.hidden_size_per_layer_input
    return {
        **dict.fromkeys(("linear_left", "linear_right"), each * text.laurel_rank),
        **dict.fromkeys(("per_layer_input_gate", "per_layer_projection"), per_layer),
        "per_layer_model_projection": per_layer,
        "altup_projections": 2 * (text.altup_num_inputs - 1) * text.hidden_size**2,  # there and back
    }


def _vectors(text: TextShape) -> int:
    """All other parameters of the decoder: norms, and AltUp's coefficients and routers."""
    each = 4 * text.hidden_size + text.head_dim  # norms around attention and MLP, and of queries
    outside = text.hidden_size
    if isinstance(text, Gemma3nTextShape):
        hidden, streams = text.hidden_size, text.altup_num_inputs
        each += 2 * hidden  # norms of LAuReL and the per-layer input
        each += 2 * hidden + hidden * streams + streams**2 + streams**3  # scale, norm, router, coefficients
        outside += text.hidden_size_per_layer_input
    return text.num_hidden_layers * each + len(text.kv_layer_types) * text.head_dim + outside


def _kv_projections(text: TextShape) -> int:
    """k_proj, v_proj and k_norm of one layer."""
    return 2 * text.num_key_value_heads * text.head_dim * text.hidden_size + text.head_dim


def _embedder(tower: VisionShape | AudioShape, text: TextShape) -> int:
    return (tower.vocab_size + 2 + text.hidden_size) * tower.hidden_size


def _audio_tower(audio: AudioShape) -> int:
    hidden = audio.hidden_size
    feed_forward = 2 * (8 * hidden**2 + 2 * hidden)  # at the start and at the end of each layer
    attention = 5 * hidden**2 + hidden // audio.conf_num_attention_heads + 2 * hidden
    convolution = 3 * hidden**2 + hidden * audio.conf_conv_kernel_size + 2 * hidden
    layer = feed_forward + attention + convolution + hidden
    return _subsampling(audio) + audio.conf_num_hidden_layers * layer


def _subsampling(audio: AudioShape) -> int:
    """Two convolutions over ``input_feat_size`` mel bins, each with a norm, and one projection."""
    total, previous, bins = 0, 1, audio.input_feat_size
    layers = zip(
        audio.sscp_conv_channel_size, audio.sscp_conv_kernel_size, audio.sscp_conv_stride_size, strict=True
    )
    for channels, kernel, stride in layers:
        total += channels * previous * kernel[0] * kernel[1] + channels
        bins = (bins + 2 - kernel[1]) // stride[1] + 1  # padding of one on each side
        previous = channels
    return total + audio.hidden_size * previous * bins
