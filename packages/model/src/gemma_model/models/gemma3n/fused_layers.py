"""All layers on the CPU's kernels, in one operation: what ``Layer`` computes.

Shapes: M new tokens, each with a slot and a position; N AltUp streams, H hidden, P per-layer input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemma_model.cpu.kernels import LANES, ops
from gemma_model.layers.attention import Batch, rotation
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.config import TextConfig
from gemma_model.models.gemma3n.decoder_layer import Layer

NOTHING = torch.empty(0)


def suits(config: TextConfig) -> bool:
    """Whether the kernels can run such a decoder: they read whole vectors."""
    widths = (config.hidden_size, config.head_dim, config.hidden_size_per_layer_input)
    return all(width % LANES == 0 for width in (*widths, *config.intermediate_size))


def last_rows(batches: Sequence[Batch], keep: int) -> Tensor | None:
    """Where the last tokens of each row are among those of all batches; ``None``: that is all of them."""
    if all(batch.tokens <= keep for batch in batches):
        return None
    found: list[int] = []
    end = 0
    for batch in batches:
        for _ in batch.slots:
            end += batch.tokens
            found.extend(range(end - min(keep, batch.tokens), end))
    return torch.tensor(found, dtype=torch.long)


class Stack:
    """The layers that a decoder runs, with what a step needs of them found once.

    Args:
        layers: in the order in which they run.
        sources: the number of the layer whose part of the cache each of them reads, its own or a lender's.
        last: the place of the last one that stores keys and values.
    """

    def __init__(
        self, config: TextConfig, layers: Sequence[Layer], sources: Sequence[int], last: int
    ) -> None:
        self._config, self._sources, first = config, sources, layers[0]
        self._kinds = list(dict.fromkeys(layer.kind for layer in layers))
        self._kind_of = [self._kinds.index(layer.kind) for layer in layers]
        self._parts = [part for layer in layers for part in _parts(layer)]
        self._deviations = [layer.mlp.deviations for layer in layers]
        self._common = first.altup.active, first.attention.heads, first.input_norm.eps, last

    def __call__(
        self,
        streams: Tensor,
        per_layer_inputs: Sequence[Tensor],
        batches: Sequence[Batch],
        cache: KVCache,
        kept: Tensor | None = None,
    ) -> Tensor:
        """All layers: ``[M, N, H]`` → ``[M, N, H]``, or of the tokens that are kept.

        Args:
            streams: of each token.
            per_layer_inputs: of each layer, ``[M, P]``; of those behind ``last`` for the kept tokens alone.
            batches: which slots and positions; one's tokens behind the other's.
            cache: all slots.
            kept: the tokens whose logits are wanted, int64; ``None``: those of all.
        """
        config = self._config
        runs = [(*own, b.tokens) for b in batches for own in zip(b.slots, b.starts, strict=True)]
        positions = torch.tensor([p for _, start, tokens in runs for p in range(start, start + tokens)])
        rotations = [rotation(positions, config.rope_theta[kind], config.head_dim) for kind in self._kinds]
        sliding = [kind == "sliding_attention" for kind in self._kinds]
        through: Tensor = ops.layers(
            streams,
            per_layer_inputs,
            self._parts,
            self._deviations,
            [cache.layers[number] for number in self._sources],
            self._kind_of,
            [cos for cos, _ in rotations],
            [sin for _, sin in rotations],
            [config.sliding_window if slides else cache.length for slides in sliding],
            torch.tensor(runs),
            *self._common,
            kept,
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
