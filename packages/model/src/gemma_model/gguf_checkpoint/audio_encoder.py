"""The encoder of audio, a conformer after two convolutions, from an ``mmproj`` file."""

from typing import Final

from gemma_model.gguf_checkpoint.encoder_tensors import Encoder, EncoderTensors, Shape, embedder_shapes
from gemma_model.gguf_checkpoint.metadata import Metadata
from gemma_wire.gguf import GGUF

PREFIXES: Final = ("a.", "mm.a.")
MAX_LAYERS: Final = 1000
SOFT_TOKENS: Final = 188
"""Those of a clip in the published models; no key of the file has it."""
STRIDE: Final = 2


def read_audio_encoder(
    model: GGUF, tensors: EncoderTensors, offset: int, text_width: int, soft_tokens: int
) -> Encoder:
    """The encoder with its embedder.

    Args:
        model: the header of the file.
        tensors: of the file.
        offset: the first of its token ids.
        text_width: hidden size of the decoder.
        soft_tokens: those of a clip.

    Raises:
        InvalidRequest: naming the file, and the key or tensor.
    """
    given = Metadata(model)
    width, heads = given.integer("audio.embedding_length"), given.integer("audio.attention.head_count")
    layers = given.integer("audio.block_count", most=MAX_LAYERS)
    vocabulary, _ = tensors.shape("mm.a.embedding.weight", 2)
    kernel = tensors.shape("a.blk.0.conv_dw.weight", 3)[-1]
    if width % heads:
        raise tensors.wrong(f"has clip.audio.embedding_length {width}, not a multiple of its {heads} heads")
    convolutions = [tensors.shape(f"a.conv1d.{i}.weight", 4) for i in range(2)]
    shapes = _subsampling(convolutions, audio_bins(model), width)
    for number in range(layers):
        block = _block(width, width // heads, kernel)
        shapes |= {f"a.blk.{number}.{name}": shape for name, shape in block.items()}
    config = {
        "model_type": "gemma3n_audio",
        "vocab_size": vocabulary,
        "vocab_offset": offset,
        "hidden_size": width,
        "input_feat_size": audio_bins(model),
        "conf_num_hidden_layers": layers,
        "conf_num_attention_heads": heads,
        "conf_conv_kernel_size": kernel,
        "sscp_conv_channel_size": [shape[0] for shape in convolutions],
        "sscp_conv_kernel_size": [shape[2:] for shape in convolutions],
    }
    embedder = embedder_shapes("mm.a.", vocabulary, width, text_width)
    return Encoder(config, shapes | embedder, soft_tokens)


def audio_bins(model: GGUF) -> int:
    """Mel bins of a frame."""
    return Metadata(model).integer("audio.num_mel_bins", most=4096)


def _subsampling(convolutions: list[Shape], bins: int, width: int) -> dict[str, Shape]:
    """Two convolutions over time and mel bins, padded by one bin on each side, and a projection."""
    shapes: dict[str, Shape] = {}
    channels = 1
    for number, (filters, _, height, breadth) in enumerate(convolutions):
        shapes[f"a.conv1d.{number}.weight"] = (filters, channels, height, breadth)
        shapes[f"a.conv1d.{number}.norm.weight"] = (filters,)
        channels, bins = filters, (bins + 2 - breadth) // STRIDE + 1
    return shapes | {"a.pre_encode.out.weight": (width, channels * bins)}


def _block(width: int, head: int, kernel: int) -> dict[str, Shape]:
    """The tensors of a conformer block."""
    norms = ("ffn_norm", "ffn_post_norm", "ln1", "ln2", "conv_norm", "norm_conv", "layer_pre_norm")
    projections = ("attn_q", "attn_k", "attn_v", "attn_out", "linear_pos", "conv_pw2")
    weights: dict[str, Shape] = {
        **dict.fromkeys((*norms, "ffn_norm_1", "ffn_post_norm_1"), (width,)),
        **dict.fromkeys(projections, (width, width)),
        **dict.fromkeys(("ffn_up", "ffn_up_1"), (4 * width, width)),
        **dict.fromkeys(("ffn_down", "ffn_down_1"), (width, 4 * width)),
        "conv_pw1": (2 * width, width),
        "conv_dw": (width, 1, kernel),
    }
    return {**{f"{name}.weight": shape for name, shape in weights.items()}, "per_dim_scale": (head,)}
