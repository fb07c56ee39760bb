"""The encoder of images, a MobileNetV5, from the tensors of an ``mmproj`` file.

Its blocks are known from their tensors, and all sizes from the shapes. What no tensor shows is the same in
every MobileNetV5: the first block of a stage halves the resolution, and the channels are multiples of 8.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any, Final

from gemma_model.gguf_checkpoint.encoder_tensors import Encoder, EncoderTensors, Shape, embedder_shapes
from gemma_model.gguf_checkpoint.metadata import Metadata
from gemma_wire.gguf import GGUF

PREFIXES: Final = ("v.", "mm.embedding.", "mm.hard_emb_norm.", "mm.soft_emb_norm.", "mm.input_projection.")
WIDTH: Final = 2048
"""Channels of the result, whatever the sizes of the blocks."""
FUSION_EXPANSION: Final = 2
MAX_SIDE: Final = 4096
"""Pixels; far more than any model has."""


def read_vision_encoder(model: GGUF, tensors: EncoderTensors, offset: int, text_width: int) -> Encoder:
    """The encoder with its embedder.

    Args:
        model: the header of the file.
        tensors: of the file.
        offset: the first of its token ids.
        text_width: hidden size of the decoder.

    Raises:
        InvalidRequest: naming the file and the tensor.
    """
    vocabulary, _ = tensors.shape("mm.embedding.weight", 2)
    soft_tokens = _soft_tokens(model, tensors)
    network = _Network(tensors)
    shapes = network.shapes | embedder_shapes("mm.", vocabulary, WIDTH, text_width)
    config = {
        "model_type": "gemma3n_vision",
        "architecture": "mobilenetv5_300m_enc",
        "do_pooling": False,
        "hidden_size": WIDTH,
        "vocab_size": vocabulary,
        "vocab_offset": offset,
        "model_args": network.arguments | {"msfa_output_resolution": isqrt(soft_tokens)},
    }
    return Encoder(config, shapes, soft_tokens)


def image_side(model: GGUF) -> int:
    """Pixels of a side of an image."""
    return Metadata(model).integer("vision.image_size", most=MAX_SIDE)


def _soft_tokens(model: GGUF, tensors: EncoderTensors) -> int:
    """Soft tokens of an image. llama.cpp has no key for them; it divides the side by its patch size."""
    side, patch = image_side(model), Metadata(model).integer("vision.patch_size")
    count = side // patch
    if not count or isqrt(count) ** 2 != count:
        raise tensors.wrong(
            f"has an image size of {side} and a patch size of {patch}, so {count} soft tokens for an image; "
            "a square number is needed"
        )
    return count


@dataclass
class _Block:
    """One block of the network.

    Args:
        tensors: of the file.
        name: of the block, such as ``v.blk.0.1``.
        channels: of its input.
        stride: 2 if it halves the resolution.
        shapes: its tensors, as far as they are known.
    """

    tensors: EncoderTensors
    name: str
    channels: int
    stride: int
    shapes: dict[str, Shape] = field(default_factory=dict)

    def has(self, tensor: str) -> bool:
        return f"{self.name}.{tensor}.weight" in self.tensors

    def size(self, tensor: str, axis: int) -> int:
        """A size of a convolution's kernel, ``[out, in, height, width]``."""
        return self.tensors.shape(f"{self.name}.{tensor}.weight", 4)[axis]

    def filters(self, tensor: str) -> int:
        """Output channels of a convolution."""
        return _multiple_of_8(self.tensors, f"{self.name}.{tensor}.weight")

    def expect(self, shapes: Mapping[str, Shape]) -> None:
        self.shapes |= {f"{self.name}.{tensor}": shape for tensor, shape in shapes.items()}

    def expect_convolution(self, convolution: str, norm: str, shape: Shape) -> None:
        self.expect({f"{convolution}.weight": shape, f"{norm}.weight": (shape[0],)})

    def depthwise(self, name: str, channels: int) -> int:
        """The size of an optional depthwise convolution's kernel; 0 if there is none."""
        if not self.has(f"{name}.conv"):
            return 0
        size = self.size(f"{name}.conv", 3)
        self.expect_convolution(f"{name}.conv", f"{name}.bn", (channels, 1, size, size))
        return size


def _edge_residual(block: _Block) -> dict[str, Any]:
    inner, kernel, out = block.filters("conv_exp"), block.size("conv_exp", 3), block.filters("conv_pwl")
    block.expect_convolution("conv_exp", "bn1", (inner, block.channels, kernel, kernel))
    block.expect_convolution("conv_pwl", "bn2", (out, inner, 1, 1))
    return {
        "block_type": "er",
        "exp_kernel_size": kernel,
        "pw_kernel_size": 1,
        "exp_ratio": inner / block.channels,
        "force_in_chs": 0,
        "se_ratio": 0.0,
        "out_chs": out,
    }


def _inverted_residual(block: _Block) -> dict[str, Any]:
    inner, out = block.filters("pw_exp.conv"), block.filters("pw_proj.conv")
    start, middle = block.depthwise("dw_start", block.channels), block.depthwise("dw_mid", inner)
    if block.stride > 1 and not start and not middle:
        raise block.tensors.wrong(f"lacks the depthwise convolution of {block.name}, which opens a stage")
    block.expect_convolution("pw_exp.conv", "pw_exp.bn", (inner, block.channels, 1, 1))
    block.expect_convolution("pw_proj.conv", "pw_proj.bn", (out, inner, 1, 1))
    block.expect({"layer_scale.gamma": (out,)})
    return {
        "block_type": "uir",
        "dw_kernel_size_start": start,
        "dw_kernel_size_mid": middle,
        "dw_kernel_size_end": 0,
        "exp_ratio": inner / block.channels,
        "se_ratio": 0.0,
        "out_chs": out,
    }


def _attention(block: _Block) -> dict[str, Any]:
    """Multi-query attention: all heads have the same keys and values."""
    channels, width, head = block.channels, block.filters("attn.query.proj"), block.size("attn.key.proj", 0)
    if width % head:
        raise block.tensors.wrong(f"has queries of {width} channels and keys of {head} in {block.name}")
    subsampled, kernel = block.has("attn.key.down_conv"), 3
    if subsampled:
        kernel = block.size("attn.key.down_conv", 3)
        for part in ("key", "value"):
            shape = (channels, 1, kernel, kernel)
            block.expect_convolution(f"attn.{part}.down_conv", f"attn.{part}.norm", shape)
    block.expect(
        {
            "norm.weight": (channels,),
            "attn.query.proj.weight": (width, channels, 1, 1),
            **{f"attn.{part}.proj.weight": (head, channels, 1, 1) for part in ("key", "value")},
            "attn.output.proj.weight": (channels, width, 1, 1),
            "layer_scale.gamma": (channels,),
        }
    )
    return {
        "block_type": "mqa",
        "dw_kernel_size": kernel,
        "num_heads": width // head,
        "key_dim": head,
        "value_dim": head,
        "kv_stride": 2 if subsampled else 1,
        "out_chs": channels,
    }


KINDS: Final[Mapping[str, Callable[[_Block], dict[str, Any]]]] = {
    "conv_exp": _edge_residual,
    "attn.query.proj": _attention,
    "pw_exp.conv": _inverted_residual,
}
"""A tensor that only blocks of this kind have → what reads them."""


class _Network:
    """The convolutional network without its embedder: its arguments for timm, and its tensors."""

    def __init__(self, tensors: EncoderTensors) -> None:
        self._tensors = tensors
        stem = _multiple_of_8(tensors, "v.conv_stem.conv.weight")
        self.shapes: dict[str, Shape] = {
            "v.conv_stem.conv.weight": (stem, 3, 3, 3),
            "v.conv_stem.conv.bias": (stem,),
            "v.conv_stem.bn.weight": (stem,),
        }
        widths, stages = [stem], []
        for number, count in enumerate(tensors.block_counts()):
            stages.append(self._stage(number, count, widths[-1]))
            widths.append(stages[-1][-1]["out_chs"])
        self.arguments = {
            "block_args": stages,
            "stem_size": stem,
            "msfa_indices": self._fused_stages(widths[1:]),
        }

    def _stage(self, number: int, count: int, channels: int) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        for i in range(count):
            blocks.append(self._block(f"v.blk.{number}.{i}", channels, 1 if i else 2))
            channels = blocks[-1]["out_chs"]
        return blocks

    def _block(self, name: str, channels: int, stride: int) -> dict[str, Any]:
        block = _Block(self._tensors, name, channels, stride)
        read = next((read for tensor, read in KINDS.items() if block.has(tensor)), None)
        if read is None:
            known = " or ".join(f"{name}.{tensor}.weight" for tensor in KINDS)
            raise self._tensors.wrong(f"has no tensor {known}")
        arguments = read(block) | {"stride": stride, "noskip": False, "act_layer": None}
        self.shapes |= block.shapes
        return arguments

    def _fused_stages(self, widths: list[int]) -> list[int]:
        """The last stages, whose outputs are fused: as many as have the channels of the fusion's input."""
        name = "v.msfa.ffn.pw_exp.conv.weight"
        channels = self._tensors.shape(name, 4)[1]
        counts = [n for n in range(1, len(widths) + 1) if sum(widths[-n:]) == channels]
        if not counts:
            raise self._tensors.wrong(f"has {name!r} for {channels} channels; the last stages have {widths}")
        inner = FUSION_EXPANSION * channels
        self.shapes |= {
            name: (inner, channels, 1, 1),
            "v.msfa.ffn.pw_exp.bn.weight": (inner,),
            "v.msfa.ffn.pw_proj.conv.weight": (WIDTH, inner, 1, 1),
            "v.msfa.ffn.pw_proj.bn.weight": (WIDTH,),
            "v.msfa.norm.weight": (WIDTH,),
        }
        return list(range(-counts[0], 0))


def _multiple_of_8(tensors: EncoderTensors, name: str) -> int:
    """Output channels of a convolution."""
    channels = tensors.shape(name, 4)[0]
    if channels % 8:
        raise tensors.wrong(f"has the tensor {name!r} for {channels} channels; a multiple of 8 is needed")
    return channels
