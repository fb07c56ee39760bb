"""One decoder layer: any number of tokens for each row of a batch.

Shapes: B rows of T new tokens each, M = B x T tokens, N AltUp streams, H hidden, P per-layer input.
"""

import math
from collections.abc import Callable
from copy import copy

from torch import Tensor

from gemma_model.layers.attention import KV, AnyReach, Attention
from gemma_model.layers.linear import Linear, Norm, gelu
from gemma_model.layers.mlp import MLP
from gemma_model.models.gemma3n.altup import AltUp
from gemma_model.models.gemma3n.config import LayerType, TextConfig
from gemma_model.weights import Weights


class Layer:
    """One decoder layer.

    Args:
        weights: of the checkpoint.
        number: its number.
    """

    def __init__(self, config: TextConfig, weights: Weights, number: int) -> None:
        prefix = f"layers.{number}."
        self.kind: LayerType = config.layer_types[number]

        def norm(name: str) -> Norm:
            return Norm(config.hidden_size, config.rms_norm_eps, weights.take(f"{prefix}{name}.weight"))

        def linear(name: str) -> Linear:
            return Linear(weights.take(f"{prefix}{name}.weight"))

        self.altup = AltUp(config, weights, prefix + "altup.")
        self.attention = Attention(config, weights, number)
        self.mlp = MLP.take(config, weights, number)
        self.input_norm = norm("input_layernorm")
        self.post_attention_norm = norm("post_attention_layernorm")
        self.pre_mlp_norm, self.post_mlp_norm = (
            norm("pre_feedforward_layernorm"),
            norm("post_feedforward_layernorm"),
        )
        self.laurel_left, self.laurel_right = linear("laurel.linear_left"), linear("laurel.linear_right")
        self.post_laurel_norm = norm("laurel.post_laurel_norm")
        self.gate, self.project = linear("per_layer_input_gate"), linear("per_layer_projection")
        self.post_projection_norm = norm("post_per_layer_input_norm")

    def __call__(
        self,
        streams: Tensor,
        per_layer_input: Tensor,
        reach: AnyReach,
        cached: Tensor | None,
        lent: KV | None,
        keep: int,
    ) -> tuple[Tensor, KV]:
        """``[M, N, H]`` → ``[B x keep, N, H]``, and the keys and values it attended to.

        Args:
            streams: of all tokens of the batch.
            per_layer_input: of each token, ``[M, P]``.
            reach: of layers of this type.
            cached: its part of the cache, if it stores any.
            lent: else the keys and values of the layer that it borrows from.
            keep: the last tokens of each row, which go on; all others leave their keys and values alone.
        """
        predicted = self.altup.predict(streams)
        x = self.input_norm(predicted[:, self.altup.active])
        query, seen = self.attention.project(x, reach, cached, lent)
        if not keep:
            return streams[:0], seen
        predicted, x, per_layer_input, query = (
            reach.trim(t, keep) for t in (predicted, x, per_layer_input, query)
        )
        attended = self.post_attention_norm(self.attention.attend(query, reach.last(keep), seen))
        laurel = x + self.post_laurel_norm(self.laurel_right(self.laurel_left(x)))
        x = (predicted[:, self.altup.active] + attended + laurel) * math.sqrt(0.5)
        x = x + self.post_mlp_norm(self.mlp(self.pre_mlp_norm(x)))
        corrected = self.altup.correct(predicted, x)
        corrected[:, 1:].add_(self._per_layer(corrected, per_layer_input).unsqueeze(1))
        return corrected, seen

    def sliced(self, size: int) -> "Layer":
        """The same layer with a smaller feed-forward part, on the same tensors."""
        other = copy(self)
        other.mlp = self.mlp.sliced(size)
        return other

    def _per_layer(self, corrected: Tensor, per_layer_input: Tensor) -> Tensor:
        gated = gelu(self.gate(self.altup.scaled_active(corrected))) * per_layer_input
        return self.post_projection_norm(self.project(gated))


Through = Callable[[Layer, Tensor, Tensor, AnyReach, Tensor | None, KV | None, int], tuple[Tensor, KV]]
"""What runs a layer: ``Layer.__call__``, or something that does the same."""
