"""One new token for each row of a batch, on the CPU's kernels: what ``Layer`` computes, in one operation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gemma_model.nn.attention import Batch, rotation
from gemma_model.nn.cache import KVCache
from gemma_model.nn.config import LayerType, TextConfig
from gemma_model.nn.kernels import LANES, ops
from gemma_model.nn.layer import Layer

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


class Stack:
    """The layers that a decoder runs, with what a step needs of them found once.

    Args:
        layers: in the order in which they run.
        sources: the number of the layer whose part of the cache each of them reads, its own or a lender's.
    """

    def __init__(self, layers: Sequence[Layer], sources: Sequence[int]) -> None:
        first, self._sources = layers[0], sources
        self._kinds = list(dict.fromkeys(layer.kind for layer in layers))
        self._kind_of = [self._kinds.index(layer.kind) for layer in layers]
        self._parts = [part for layer in layers for part in _parts(layer)]
        self._deviations = [layer.mlp.deviations for layer in layers]
        self._common = first.altup.active, first.attention.heads, first.input_norm.eps

    def __call__(
        self,
        streams: Tensor,
        per_layer_inputs: Sequence[Tensor],
        places: Mapping[LayerType, Place],
        cache: KVCache,
    ) -> Tensor:
        """All layers: ``[M, N, H]`` → ``[M, N, H]``.

        Args:
            streams: of each row's new token.
            per_layer_inputs: of each layer, ``[M, P]``.
            places: for layers of each type.
            cache: all slots.
        """
        own = [places[kind] for kind in self._kinds]
        through: Tensor = ops.layers(
            streams,
            per_layer_inputs,
            self._parts,
            self._deviations,
            [cache.layers[number] for number in self._sources],
            self._kind_of,
            [place.cos for place in own],
            [place.sin for place in own],
            [place.window for place in own],
            own[0].slots,
            own[0].positions,
            *self._common,
        )
        return through


def _parts(layer: Layer) -> tuple[Tensor, ...]:
    """The tensors of a layer, in the order of ``Part`` in the kernels."""
    altup, attention, mlp = layer.altup, layer.attention, layer.mlp
    return (
        altup.norm.factor,
        altup.router.weight,
        altup.prediction.weight,
        altup.correction.weight,
        NOTHING if altup.scale is None else altup.scale,
        layer.input_norm.factor,
        attention.into.weight,
        attention.scale,
        attention.out_of.weight,
        layer.post_attention_norm.factor,
        layer.laurel_left.weight,
        layer.laurel_right.weight,
        layer.post_laurel_norm.factor,
        layer.pre_mlp_norm.factor,
        mlp.gate,
        mlp.up,
        mlp.down.weight,
        layer.post_mlp_norm.factor,
        layer.gate.weight,
        layer.project.weight,
        layer.post_projection_norm.factor,
    )
