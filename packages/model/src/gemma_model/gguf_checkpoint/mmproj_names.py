"""The names of the encoders' tensors in ``mmproj`` files, and those of the same tensors in a checkpoint."""

import re
from collections.abc import Iterator
from math import prod
from typing import Final

EMBEDDER: Final = {
    "embedding.weight": "embedding.weight",
    "hard_emb_norm.weight": "hard_embedding_norm.weight",
    "soft_emb_norm.weight": "soft_embedding_norm.weight",
    "input_projection.weight": "embedding_projection.weight",
}
SUBSAMPLING: Final = {
    "conv1d.0.weight": "conv_0.conv.weight",
    "conv1d.0.norm.weight": "conv_0.norm.weight",
    "conv1d.1.weight": "conv_1.conv.weight",
    "conv1d.1.norm.weight": "conv_1.norm.weight",
    "pre_encode.out.weight": "input_proj_linear.weight",
}
CONFORMER_BLOCK: Final = {
    "ffn_norm.weight": "ffw_layer_start.pre_layer_norm.weight",
    "ffn_up.weight": "ffw_layer_start.ffw_layer_1.weight",
    "ffn_down.weight": "ffw_layer_start.ffw_layer_2.weight",
    "ffn_post_norm.weight": "ffw_layer_start.post_layer_norm.weight",
    "ln1.weight": "attention.pre_attn_norm.weight",
    "attn_q.weight": "attention.attn.q_proj.weight",
    "attn_k.weight": "attention.attn.k_proj.weight",
    "attn_v.weight": "attention.attn.v_proj.weight",
    "per_dim_scale": "attention.attn.per_dim_scale",
    "linear_pos.weight": "attention.attn.relative_position_embedding.pos_proj.weight",
    "attn_out.weight": "attention.post.weight",
    "ln2.weight": "attention.post_norm.weight",
    "conv_norm.weight": "lconv1d.pre_layer_norm.weight",
    "conv_pw1.weight": "lconv1d.linear_start.weight",
    "conv_dw.weight": "lconv1d.depthwise_conv1d.weight",
    "norm_conv.weight": "lconv1d.conv_norm.weight",
    "conv_pw2.weight": "lconv1d.linear_end.weight",
    "ffn_norm_1.weight": "ffw_layer_end.pre_layer_norm.weight",
    "ffn_up_1.weight": "ffw_layer_end.ffw_layer_1.weight",
    "ffn_down_1.weight": "ffw_layer_end.ffw_layer_2.weight",
    "ffn_post_norm_1.weight": "ffw_layer_end.post_layer_norm.weight",
    "layer_pre_norm.weight": "norm.weight",
}
OTHER_NAMES: Final = {"a.input_projection.weight": "a.pre_encode.out.weight"}
"""llama.cpp says that its name for the projection before the conformer is a mistake, and names this one."""

_AUDIO_BLOCK: Final = re.compile(r"a\.blk\.(\d{1,4})\.(.+)")
_VISION_BLOCK: Final = re.compile(r"v\.blk\.(\d{1,4}\.\d{1,4}\..+)")


def usual_name(name: str) -> str:
    """The name that is used here of those that a tensor may have in an ``mmproj`` file."""
    name = OTHER_NAMES.get(name, name)
    return name.removesuffix(".weight") if name.endswith(".per_dim_scale.weight") else name


def checkpoint_name(name: str) -> str | None:
    """The name in a checkpoint, without its wrappers; ``None`` if this is not known.

    Args:
        name: in the ``mmproj`` file, as ``usual_name`` returns it.
    """
    return next(_checkpoint_names(name), None)


def _checkpoint_names(name: str) -> Iterator[str]:
    if own := SUBSAMPLING.get(name.removeprefix("a.")):
        yield f"audio_tower.subsample_conv_projection.{own}"
    if (block := _AUDIO_BLOCK.fullmatch(name)) and (own := CONFORMER_BLOCK.get(block[2])):
        yield f"audio_tower.conformer.{block[1]}.{own}"
    if block := _VISION_BLOCK.fullmatch(name):
        yield f"vision_tower.timm_model.blocks.{block[1]}"
    if name.startswith(("v.conv_stem.", "v.msfa.")):
        yield f"vision_tower.timm_model.{name.removeprefix('v.')}"
    for prefix, part in (("mm.a.", "embed_audio"), ("mm.", "embed_vision")):
        if name.startswith(prefix) and (own := EMBEDDER.get(name.removeprefix(prefix))):
            yield f"{part}.{own}"


def checkpoint_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in a checkpoint: llama.cpp has some vectors as ``[1, n, 1, 1]``, and kernels as matrices."""
    if len(shape) - shape.count(1) <= 1:
        return (prod(shape),)
    if name.endswith(".conv_dw.weight") and len(shape) == 2:
        return (shape[0], 1, shape[1])
    return shape
