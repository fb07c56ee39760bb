"""One decoder layer: attention, LAuReL, the MLP, AltUp around them, and the per-layer input after them.

Shapes: B rows of T new tokens each, M = B x T tokens, N AltUp streams, H hidden, P per-layer input.
"""

import math
from collections.abc import Callable
from copy import copy

from torch import Tensor

from gemma_model.layers.attention import Attention
from gemma_model.layers.attention_metadata import KV, AnyMetadata
from gemma_model.layers.linear import Linear
from gemma_model.layers.mlp import gelu
from gemma_model.layers.rms_norm import RMSNorm
from gemma_model.layers.specs import LayerType
from gemma_model.models.gemma3n.altup import AltUp
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.sparse_mlp import SparseMLP
from gemma_model.weights import Weights


class Laurel:
    """A learned low-rank residual layer (LAuReL, https://arxiv.org/abs/2411.07501).

    Args:
        weights: of the checkpoint.
        prefix: ``layers.N.laurel.``.
    """

    def __init__(self, config: Gemma3nDecoderConfig, weights: Weights, prefix: str) -> None:
        self.linear_left = Linear(weights.take_matrix(prefix + "linear_left.weight"))
        self.linear_right = Linear(weights.take_matrix(prefix + "linear_right.weight"))
        norm = weights.take(prefix + "post_laurel_norm.weight")
        self.post_laurel_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, norm)

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, H]`` → ``[M, H]``."""
        return x + self.post_laurel_norm(self.linear_right(self.linear_left(x)))


class Gemma3nDecoderLayer:
    """One decoder layer.

    Args:
        weights: of the checkpoint.
        number: of the layer.
    """

    def __init__(self, config: Gemma3nDecoderConfig, weights: Weights, number: int) -> None:
        prefix = f"layers.{number}."
        self.layer_type: LayerType = config.layer_types[number]
        eps = config.rms_norm_eps

        def norm(name: str) -> RMSNorm:
            return RMSNorm(config.hidden_size, eps, weights.take(f"{prefix}{name}.weight"))

        def linear(name: str) -> Linear:
            return Linear(weights.take_matrix(f"{prefix}{name}.weight"))

        self.altup = AltUp(config, weights, prefix + "altup.")
        spec, shared_with = config.attention[self.layer_type], config.cache_spec[number].shared_with
        self.self_attn = Attention(spec, eps, weights, prefix + "self_attn.", shared_with)
        self.mlp = SparseMLP.load(config, weights, number)
        self.laurel = Laurel(config, weights, prefix + "laurel.")
        self.input_layernorm = norm("input_layernorm")
        self.post_attention_layernorm = norm("post_attention_layernorm")
        self.pre_feedforward_layernorm = norm("pre_feedforward_layernorm")
        self.post_feedforward_layernorm = norm("post_feedforward_layernorm")
        self.per_layer_input_gate = linear("per_layer_input_gate")
        self.per_layer_projection = linear("per_layer_projection")
        self.post_per_layer_input_norm = norm("post_per_layer_input_norm")

    def __call__(
        self,
        streams: Tensor,
        per_layer_input: Tensor,
        metadata: AnyMetadata,
        kv_cache: Tensor | None,
        shared_kv: KV | None,
        keep: int,
    ) -> tuple[Tensor, KV]:
        """``[M, N, H]`` → ``[B x keep, N, H]``, and the keys and values that the layer attended to.

        Args:
            streams: of all tokens of the batch.
            per_layer_input: of each token, ``[M, P]``.
            metadata: of layers of this type.
            kv_cache: the layer's part of the cache, if it stores keys and values.
            shared_kv: otherwise the keys and values of the layer that it shares with.
            keep: the last tokens of each row, which are computed to the end; of all others only keys and
                values are.
        """
        predicted = self.altup.predict(streams)
        x = self.input_layernorm(predicted[:, self.altup.active])
        query, kv = self.self_attn.project(x, metadata, kv_cache, shared_kv)
        if not keep:
            return streams[:0], kv
        predicted, x, per_layer_input, query = (
            metadata.last(t, keep) for t in (predicted, x, per_layer_input, query)
        )
        attended = self.self_attn.attend(query, metadata.for_last(keep), kv)
        attended = predicted[:, self.altup.active] + self.post_attention_layernorm(attended)
        x = (attended + self.laurel(x)) * math.sqrt(0.5)
        x = x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        corrected = self.altup.correct(predicted, x)
        corrected[:, 1:].add_(self._per_layer(corrected, per_layer_input).unsqueeze(1))
        return corrected, kv

    def narrowed(self, intermediate_size: int) -> "Gemma3nDecoderLayer":
        """The same layer with a smaller MLP, as views of the same tensors."""
        other = copy(self)
        other.mlp = self.mlp.narrowed(intermediate_size)
        return other

    def _per_layer(self, corrected: Tensor, per_layer_input: Tensor) -> Tensor:
        gate = gelu(self.per_layer_input_gate(self.altup.scale_corrected_output(corrected)))
        return self.post_per_layer_input_norm(self.per_layer_projection(gate * per_layer_input))


RunLayer = Callable[
    [Gemma3nDecoderLayer, Tensor, Tensor, AnyMetadata, Tensor | None, KV | None, int], tuple[Tensor, KV]
]
"""What runs a layer: ``Gemma3nDecoderLayer.__call__``, or a compiled version of it."""
