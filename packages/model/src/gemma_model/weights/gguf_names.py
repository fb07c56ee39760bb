"""The names of tensors in GGUF files, and those of the same tensors in the published checkpoints."""

import re
from collections.abc import Mapping
from typing import Final

LAYER: Final = re.compile(r"blk\.(\d+)\.(.+)")

GEMMA3: Final = {
    "token_embd.weight": "embed_tokens.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "lm_head.weight",
}
GEMMA3N: Final = GEMMA3 | {
    "per_layer_token_embd.weight": "embed_tokens_per_layer.weight",
    "per_layer_model_proj.weight": "per_layer_model_projection.weight",
    "per_layer_proj_norm.weight": "per_layer_projection_norm.weight",
}
GEMMA3_LAYER: Final = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
}
GEMMA3N_LAYER: Final = GEMMA3_LAYER | {
    "inp_gate.weight": "per_layer_input_gate.weight",
    "proj.weight": "per_layer_projection.weight",
    "post_norm.weight": "post_per_layer_input_norm.weight",
    "altup_correct_coef.weight": "altup.correction_coefs.weight",
    "altup_correct_scale.weight": "altup.correct_output_scale",
    "altup_predict_coef.weight": "altup.prediction_coefs.weight",
    "altup_router.weight": "altup.modality_router.weight",
    "altup_router_norm.weight": "altup.router_norm.weight",
    "laurel_l.weight": "laurel.linear_left.weight",
    "laurel_r.weight": "laurel.linear_right.weight",
    "laurel_post_norm.weight": "laurel.post_laurel_norm.weight",
}
NAMES: Final[Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]] = {
    "gemma3": (GEMMA3, GEMMA3_LAYER),
    "gemma3n": (GEMMA3N, GEMMA3N_LAYER),
}
"""Architecture → names of the model, and names within a layer."""

STACKED: Final = {
    "altup_proj.weight": "altup_projections.{}.weight",
    "altup_unembd_proj.weight": "altup_unembed_projections.{}.weight",
}
"""Matrices that a GGUF file has as one tensor ``[n, out, in]``."""


def checkpoint_name(architecture: str, name: str) -> str | None:
    """The name in a checkpoint, without its wrappers; ``None`` if this is not known.

    Args:
        architecture: ``gemma3`` or ``gemma3n``.
        name: in the GGUF file.
    """
    names, layer_names = NAMES[architecture]
    layer = LAYER.fullmatch(name)
    if layer is None:
        return names.get(name)
    within = layer_names.get(layer[2])
    return within and f"layers.{layer[1]}.{within}"


def has_one_added(architecture: str, name: str) -> bool:
    """Whether the file has 1 + weight: Gemma 3 multiplies by that, and the files have what multiplies."""
    return architecture == "gemma3" and name.endswith("norm.weight")
