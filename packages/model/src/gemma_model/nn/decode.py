"""One new token for each row of a batch, on the CPU's kernels: what ``Layer`` computes, in one operation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gemma_model.nn.attention import Batch, rotation
from gemma_model.nn.cache import KVCache
from gemma_model.nn.config import LayerType, TextConfig
from gemma_model.nn.kernels import LANES, NEVER, ops
from gemma_model.nn.layer import Layer
from gemma_model.nn.ops import Norm

NOTHING = torch.empty(0)


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


def run(
    layers: Sequence[Layer],
    streams: Tensor,
    per_layer_inputs: Sequence[Tensor],
    places: Mapping[LayerType, Place],
    cached: Sequence[Tensor],
) -> Tensor:
    """All layers: ``[M, N, H]`` → ``[M, N, H]``.

    Args:
        layers: whose weights are used.
        streams: of each row's new token.
        per_layer_inputs: of each layer, ``[M, P]``.
        places: for layers of each type.
        cached: each layer's part of the cache, or its lender's: ``[slots, 2 x kv_heads, columns, d]``.
    """
    kinds, own = list(places), list(places.values())
    first = layers[0]
    through: Tensor = ops.layers(
        streams,
        per_layer_inputs,
        [part for layer in layers for part in _parts(layer)],
        [NEVER if layer.mlp.deviations is None else layer.mlp.deviations for layer in layers],
        cached,
        [kinds.index(layer.kind) for layer in layers],
        [place.cos for place in own],
        [place.sin for place in own],
        [place.window for place in own],
        own[0].slots,
        own[0].positions,
        first.altup.active,
        first.attention.heads,
        first.input_norm.eps,
    )
    return through


def _parts(layer: Layer) -> tuple[Tensor, ...]:
    """The tensors of a layer, in the order of ``Part`` in the kernels."""
    altup, attention, mlp = layer.altup, layer.attention, layer.mlp
    return (
        _factor(altup.norm),
        altup.router.weight,
        altup.prediction.weight,
        altup.correction.weight,
        NOTHING if altup.scale is None else altup.scale,
        _factor(layer.input_norm),
        attention.into.weight,
        attention.scale,
        attention.out_of.weight,
        _factor(layer.post_attention_norm),
        layer.laurel_left.weight,
        layer.laurel_right.weight,
        _factor(layer.post_laurel_norm),
        _factor(layer.pre_mlp_norm),
        mlp.gate,
        mlp.up,
        mlp.down.weight,
        _factor(layer.post_mlp_norm),
        layer.gate.weight,
        layer.project.weight,
        _factor(layer.post_projection_norm),
    )


def _factor(norm: Norm) -> Tensor:
    assert norm.weight is not None, "the norms of whole streams have one"
    return norm.weight
