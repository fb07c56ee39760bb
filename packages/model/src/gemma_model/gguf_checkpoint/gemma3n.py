"""``config.json`` of Gemma 3n models, from the metadata of a GGUF file."""

import math
from typing import Any, Final

from gemma_model.gguf_checkpoint.gemma3 import common_config
from gemma_model.gguf_checkpoint.metadata import Metadata, shape_of
from gemma_wire.gguf import GGUF

PADDED_VOCABULARY: Final = 262_400
TEXT_VOCABULARY: Final = 262_144
"""Rows of the published per-layer table. Newer files have rows of zeros up to the complete vocabulary."""
DEFAULT_SOFTCAP: Final = 30.0
"""That of all published models; some files do not have the key."""


def build_config(model: GGUF) -> dict[str, Any]:
    """The configuration.

    Raises:
        InvalidRequest: a key or a tensor is missing, or has an unsupported value.
    """
    given, config = Metadata(model), common_config(model, period=5)
    layers = config["num_hidden_layers"]
    table_rows, _ = shape_of(model, "per_layer_token_embd.weight", 2)
    rank, _ = shape_of(model, "blk.0.laurel_l.weight", 2)
    scales = given.numbers("activation_sparsity_scale", layers) or [-math.inf] * layers
    return config | {
        "architectures": ["Gemma3nForCausalLM"],
        "model_type": "gemma3n_text",
        "vocab_size_per_layer_input": TEXT_VOCABULARY if table_rows == PADDED_VOCABULARY else table_rows,
        "hidden_size_per_layer_input": given.integer("embedding_length_per_layer_input"),
        "final_logit_softcapping": config["final_logit_softcapping"] or DEFAULT_SOFTCAP,
        "altup_active_idx": given.integer("altup.active_idx", least=0),
        "altup_num_inputs": given.integer("altup.num_inputs"),
        "altup_correct_scale": "blk.0.altup_correct_scale.weight" in model.tensors,
        "num_kv_shared_layers": given.integer("attention.shared_kv_layers", least=0),
        "laurel_rank": rank,
        "activation_sparsity_pattern": [_share(scale) for scale in scales],
    }


def _share(scale: float) -> float:
    """The share of inactive neurons, whose quantile of the normal distribution is ``scale``."""
    return round((1 + math.erf(scale / math.sqrt(2))) / 2, 6)
