"""How many parameters each part of a model has, and what its cache takes: arithmetic on a shape alone."""

from dataclasses import dataclass
from typing import Final

from gemma_launcher.plan.shape import SLIDING, Audio, Shape, Text, Vision

VISION_PARAMETERS: Final = {"mobilenetv5_300m_enc": 294_126_912}
"""Of the towers that timm knows by name. A tower that is altered can only be counted in the file."""


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    Args:
        embeddings: tokens to streams; the output head is the same tensor.
        layers: of the decoder, with what surrounds them.
        per_layer_table: the embeddings of every layer's own input.
        vision, audio: the towers with their embedders.
        unused: keys' and values' projections of the KV-shared layers, which published files hold as well.
        vision_known: whether the vision tower could be counted; it is 0 otherwise.
    """

    embeddings: int
    layers: int
    per_layer_table: int
    vision: int
    audio: int
    unused: int
    vision_known: bool = True

    @property
    def total(self) -> int:
        """Of the published file."""
        return self.decoder + self.towers + self.per_layer_table + self.unused

    @property
    def decoder(self) -> int:
        """What is always on the device."""
        return self.embeddings + self.layers

    @property
    def towers(self) -> int:
        """What is there for pictures and sounds."""
        return self.vision + self.audio


def count(shape: Shape, vision_tower: int | None = None) -> Parameters:
    """The parameters of each part.

    Args:
        shape: of the model.
        vision_tower: as counted in the file, for a tower whose configuration does not say it.
    """
    text, vision, audio = shape.text, shape.vision, shape.audio
    tower = vision_tower if vision is None or vision_tower is not None else _vision_tower(vision)
    return Parameters(
        embeddings=text.vocab_size * text.hidden_size,
        layers=sum(_layer(text, number) for number in range(text.layers)) + _around_layers(text),
        per_layer_table=text.vocab_size_per_layer_input * text.layers * text.hidden_size_per_layer_input,
        vision=(tower or 0) + _embedder(vision, text) if vision else 0,
        audio=_audio_tower(audio) + _embedder(audio, text) if audio else 0,
        unused=text.num_kv_shared_layers * _keys_and_values(text),
        vision_known=vision is None or tower is not None,
    )


def slot_bytes(text: Text, length: int, item_bytes: int) -> int:
    """Bytes of the cache that one sequence of ``length`` tokens takes; sliding layers keep their window."""
    ring = min(text.sliding_window, length)
    columns = sum(ring if kind == SLIDING else length for kind in text.stored)
    return columns * token_bytes(text, item_bytes)


def token_bytes(text: Text, item_bytes: int) -> int:
    """Bytes of one token's key and value in one layer."""
    return 2 * text.num_key_value_heads * text.head_dim * item_bytes


def table_row(text: Text) -> int:
    """Numbers that one token reads of the per-layer table."""
    return text.layers * text.hidden_size_per_layer_input


def _layer(text: Text, number: int) -> int:
    hidden, streams, head = text.hidden_size, text.altup_num_inputs, text.head_dim
    heads = text.num_attention_heads * head
    attention = 2 * hidden * heads + head  # queries, output, the queries' norm
    if number < len(text.stored):
        attention += _keys_and_values(text)
    mlp = 3 * hidden * text.intermediate_size[number]
    altup = 2 * hidden + hidden * streams + streams**2 + streams**3  # scale, norm, router, correct, predict
    laurel = 2 * hidden * text.laurel_rank + hidden
    per_layer_input = 2 * hidden * text.hidden_size_per_layer_input + hidden
    norms = 4 * hidden  # before and after attention, before and after the MLP
    return attention + mlp + altup + laurel + per_layer_input + norms


def _keys_and_values(text: Text) -> int:
    return 2 * text.num_key_value_heads * text.head_dim * text.hidden_size + text.head_dim


def _around_layers(text: Text) -> int:
    projections = 2 * (text.altup_num_inputs - 1) * text.hidden_size**2  # one embedding to streams, and back
    per_layer = table_row(text) * text.hidden_size + text.hidden_size_per_layer_input
    return projections + per_layer + text.hidden_size  # and the last norm


def _embedder(tower: Vision | Audio, text: Text) -> int:
    return (tower.vocab_size + 2 + text.hidden_size) * tower.hidden_size


def _vision_tower(vision: Vision) -> int | None:
    return None if vision.altered else VISION_PARAMETERS.get(vision.architecture)


def _audio_tower(audio: Audio) -> int:
    hidden = audio.hidden_size
    feed_forward = 2 * (8 * hidden**2 + 2 * hidden)  # at the start and at the end of each layer
    attention = 5 * hidden**2 + hidden // audio.conf_num_attention_heads + 2 * hidden
    convolution = 3 * hidden**2 + hidden * audio.conf_conv_kernel_size + 2 * hidden
    layer = feed_forward + attention + convolution + hidden
    return _subsampling(audio) + audio.conf_num_hidden_layers * layer


def _subsampling(audio: Audio) -> int:
    """Two convolutions, each with a norm, over frames of ``input_feat_size`` bins; then one projection."""
    total, before, bins = 0, 1, audio.input_feat_size
    for channels, kernel, stride in zip(audio.channels, audio.kernels, audio.strides, strict=True):
        total += channels * before * kernel[0] * kernel[1] + channels
        bins = (bins + 2 - kernel[1]) // stride[1] + 1  # padded by one on each side
        before = channels
    return total + audio.hidden_size * before * bins
