"""One new token for each row of a batch, on the CPU's kernels: what ``Layer`` computes, in few operations."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gemma_model.nn.attention import Batch, rotation
from gemma_model.nn.cache import KVCache
from gemma_model.nn.config import LayerType, TextConfig
from gemma_model.nn.kernels import LANES, ops
from gemma_model.nn.layer import Layer

NEVER = float("nan")
FEW_ROWS = 64
"""Rows up to which a sparse layer is quicker when only the neurons that some row leaves open are read."""


def suits(config: TextConfig) -> bool:
    """Whether the kernels can run such a decoder: they read whole vectors."""
    widths = (config.hidden_size, config.head_dim, config.hidden_size_per_layer_input)
    return all(width % LANES == 0 for width in (*widths, *config.intermediate_size))


@dataclass(frozen=True)
class Place:
    """Where the new tokens of a batch stand, for layers of one type.

    Args:
        slots, positions: of each row, ``[M]`` int64.
        cos, sin: of the rotary angles, ``[M, 1, d]``, the first half of the sines negated.
        window: how far back a token sees, itself included.
    """

    slots: Tensor
    positions: Tensor
    cos: Tensor
    sin: Tensor
    window: int

    @staticmethod
    def of(config: TextConfig, batch: Batch, kind: LayerType, cache: KVCache) -> "Place":
        """The place of a batch in layers of one type."""
        positions = torch.tensor(batch.starts)
        cos, sin = rotation(positions, config.rope_theta[kind], config.head_dim)
        window = config.sliding_window if kind == "sliding_attention" else cache.length
        return Place(torch.tensor(batch.slots), positions, cos, sin, window)


def run(layer: Layer, streams: Tensor, per_layer_input: Tensor, place: Place, cached: Tensor) -> Tensor:
    """A layer: ``[M, N, H]`` → ``[M, N, H]``.

    Args:
        layer: whose weights are used.
        streams: of each row's new token.
        per_layer_input: ``[M, P]``.
        place: for layers of its type.
        cached: its part of the cache, or its lender's: ``[slots, 2 x kv_heads, columns, d]``.
    """
    altup, eps = layer.altup, layer.input_norm.eps
    routing = (altup.norm.weight, altup.router.weight)
    predicted = ops.predict(streams, altup.active, *routing, altup.prediction.weight, eps)
    x = ops.rms_norm(predicted[:, altup.active], layer.input_norm.weight, eps)
    attended = _attend(layer, x, place, cached)
    laurel = layer.laurel_right(layer.laurel_left(x))
    norms = (layer.post_attention_norm.weight, layer.post_laurel_norm.weight)
    x = ops.join(predicted, altup.active, x, attended, norms[0], laurel, norms[1], eps)
    x = ops.add_norm(x, _feed_forward(layer, x), layer.post_mlp_norm.weight, eps)
    corrected: Tensor = ops.correct(predicted, altup.active, x, *routing, altup.correction.weight, eps)
    gate = layer.gate(altup.scaled_active(corrected))
    more = layer.project(ops.gelu_times(gate, per_layer_input))
    ops.add_to_others(corrected, more, layer.post_projection_norm.weight, eps)
    return corrected


def _attend(layer: Layer, x: Tensor, place: Place, cached: Tensor) -> Tensor:
    attention, eps = layer.attention, layer.input_norm.eps
    query = ops.heads(
        attention.into(x),
        attention.scale,
        place.cos,
        place.sin,
        eps,
        attention.heads,
        cached if attention.stores else None,
        place.slots,
        place.positions,
    )
    seen = ops.attend(query, cached, place.slots, place.positions, place.window)
    return attention.out_of(seen)


def _feed_forward(layer: Layer, x: Tensor) -> Tensor:
    mlp = layer.mlp
    x = ops.rms_norm(x, layer.pre_mlp_norm.weight, layer.pre_mlp_norm.eps)
    if mlp.deviations is not None and x.shape[0] <= FEW_ROWS:
        few: Tensor = ops.sparse_feed_forward(x, mlp.gate, mlp.up, mlp.down.weight.t(), mlp.deviations)
        return few
    halves = [half(x) for half in mlp.gate_up]
    gate_up = halves[0] if len(halves) == 1 else torch.cat(halves, dim=-1)
    gated = ops.gated(gate_up, NEVER if mlp.deviations is None else mlp.deviations)
    return mlp.down(gated)
