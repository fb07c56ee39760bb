"""One decoder layer: attention and the MLP, each with a norm before and after it.

Shapes: B rows of T new tokens each, M = B x T tokens, H hidden.
"""

from collections.abc import Callable

from torch import Tensor

from gemma_model.layers.attention import Attention
from gemma_model.layers.attention_metadata import AnyMetadata
from gemma_model.layers.mlp import GatedMLP
from gemma_model.layers.rms_norm import RMSNorm
from gemma_model.layers.specs import LayerType
from gemma_model.models.gemma3.config import NORM_OFFSET, Gemma3DecoderConfig
from gemma_model.weights import Weights


class Gemma3DecoderLayer:
    """One decoder layer.

    Args:
        weights: of the checkpoint.
        number: of the layer.
    """

    def __init__(self, config: Gemma3DecoderConfig, weights: Weights, number: int) -> None:
        prefix = f"layers.{number}."
        self.layer_type: LayerType = config.layer_types[number]
        self.input_layernorm, self.post_attention_layernorm = (
            load_norm(config, weights, f"{prefix}{name}")
            for name in ("input_layernorm", "post_attention_layernorm")
        )
        self.pre_feedforward_layernorm, self.post_feedforward_layernorm = (
            load_norm(config, weights, f"{prefix}{name}")
            for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm")
        )
        spec, eps = config.attention[self.layer_type], config.rms_norm_eps
        self.self_attn = Attention(spec, eps, weights, prefix + "self_attn.", shared_with=None)
        gate, up, down = (f"{prefix}mlp.{name}_proj.weight" for name in ("gate", "up", "down"))
        gate_up = (weights.take_matrix(gate, up),)
        self.mlp = GatedMLP(gate_up, weights.take_matrix(down), weights.cpu_kernels)

    def __call__(self, x: Tensor, metadata: AnyMetadata, kv_cache: Tensor, keep: int) -> Tensor:
        """``[M, H]`` → ``[B x keep, H]``.

        Args:
            x: of all tokens of the batch.
            metadata: of layers of this type.
            kv_cache: the layer's part of the cache.
            keep: the last tokens of each row, which are computed to the end; of all others only keys and
                values are.
        """
        query, kv = self.self_attn.project(self.input_layernorm(x), metadata, kv_cache, None)
        if not keep:
            return x[:0]
        x, query = (metadata.last(t, keep) for t in (x, query))
        attended = self.self_attn.attend(query, metadata.for_last(keep), kv)
        x = x + self.post_attention_layernorm(attended)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


RunLayer = Callable[[Gemma3DecoderLayer, Tensor, AnyMetadata, Tensor, int], Tensor]
"""What runs a layer: ``Gemma3DecoderLayer.__call__``, or a compiled version of it."""


def load_norm(config: Gemma3DecoderConfig, weights: Weights, name: str) -> RMSNorm:
    """The norm of that name. Its factors are fp32: 1 + weight would lose the weight's last bits in bf16."""
    weight = weights.take(f"{name}.weight").float() + NORM_OFFSET
    return RMSNorm(config.hidden_size, config.rms_norm_eps, weight, weights.cpu_kernels)
