"""The text decoder: a batch of slots, each at its own position, to logits.

Shapes: B rows of T new tokens each, M = B x T tokens, N AltUp streams, H hidden, P per-layer input.
"""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gemma_model.cpu import kernels
from gemma_model.layers.attention import KV, AnyReach, Batch, Reach, Together
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.linear import Linear, Norm
from gemma_model.models.gemma3n.altup import Streams
from gemma_model.models.gemma3n.config import LayerType, TextConfig
from gemma_model.models.gemma3n.decoder_layer import Layer, Through
from gemma_model.models.gemma3n.fused_layers import Stack, last_rows, suits
from gemma_model.models.gemma3n.nested_models import Slice
from gemma_model.models.gemma3n.per_layer_embeddings import PerLayerInputs, PerLayerTable
from gemma_model.weights import Weights


class Embedding:
    """Token ids to the decoder's input.

    Args:
        weights: of the checkpoint.
    """

    def __init__(self, config: TextConfig, weights: Weights) -> None:
        self.table = weights.take("embed_tokens.weight")  # [vocab, H], the output head too
        weights.leave(["lm_head.weight"], "tied to embed_tokens")
        self._scale = torch.tensor(
            math.sqrt(config.hidden_size), dtype=self.table.dtype
        ).item()  # rounded too
        self._hard: tuple[int, Tensor] | None = None

    def set_hard(self, offset: int, embeddings: Tensor) -> None:
        """Ids from ``offset`` on are the towers' own: ``[n, H]``, as their embedders make them."""
        self._hard = offset, embeddings

    def __call__(self, ids: Tensor) -> Tensor:
        """``[M]`` → ``[M, H]``."""
        embedded = F.embedding(ids, self.table) * self._scale
        if self._hard is None:
            return embedded
        offset, table = self._hard
        hard = F.embedding((ids - offset).clamp(min=0), table)
        return torch.where((ids >= offset).unsqueeze(1), hard, embedded)


class Decoder:
    """All layers, and the head.

    Args:
        weights: of the checkpoint; its text part is used up.
        table_on_device: keep the per-layer table on the device too.
    """

    def __init__(self, config: TextConfig, weights: Weights, table_on_device: bool = False) -> None:
        self.config, self._compiled = config, weights.compiled and suits(config)
        self.embed = Embedding(config, weights)
        self.per_layer_table = PerLayerTable(config, weights, table_on_device)

        def norm_of(width: int, name: str) -> Norm:
            return Norm(width, config.rms_norm_eps, weights.take(f"{name}.weight"), weights.compiled)

        norm = norm_of(config.hidden_size_per_layer_input, "per_layer_projection_norm")
        projection = weights.take("per_layer_model_projection.weight")
        self._inputs_of = partial(PerLayerInputs, config, projection, norm, weights.compiled)
        self._storing = range(config.first_kv_shared_layer)
        self.sharing = range(config.first_kv_shared_layer, config.num_hidden_layers)
        self._storing_inputs = self._inputs_of(self._storing)
        self.sharing_inputs = self._inputs_of(self.sharing)
        self._streams = Streams(config, weights)
        self.layers = [Layer(config, weights, number) for number in range(config.num_hidden_layers)]
        self._norm = norm_of(config.hidden_size, "norm")
        self._head = Linear(self.embed.table)
        self.stack = self.stacked()

    def sliced(self, nested: Slice) -> "Decoder":
        """A model nested in this one, on the same tensors; it may use the same cache, not what is in it.

        Raises:
            InvalidRequest: when it is not there.
        """
        nested.check(self.config)
        other = copy(self)
        first = self.config.first_kv_shared_layer + len(nested.skipped)
        other.sharing = range(first, self.config.num_hidden_layers)
        other.sharing_inputs = self._inputs_of(other.sharing)
        other.layers = [
            layer if number in nested.skipped else layer.sliced(nested.size_of(number))
            for number, layer in enumerate(self.layers)
        ]
        other.stack = other.stacked()
        return other

    def stacked(self) -> Stack | None:
        """The layers for the CPU's kernels, where they can be used."""
        if not self._compiled:
            return None
        running = (*self._storing, *self.sharing)
        sources = [self.config.kv_source(number) for number in running]
        layers = [self.layers[number] for number in running]
        return Stack(self.config, layers, sources, last=len(self._storing) - 1)

    def __call__(
        self, x: Tensor, table_rows: Tensor, batches: Sequence[Batch], cache: KVCache, keep: int
    ) -> Tensor | None:
        """Run batches in different slots, and write their keys and values into the cache.

        All weights are read once for all of them.

        Only the last ``keep`` tokens of each row go through what nobody else depends on: the last storing
        layer behind its keys and values, and the layers that store none. That changes no result.

        Args:
            x: embeddings, ``[M, H]``.
            table_rows: of the per-layer table, ``[M, layers x P]``.
            batches: which slots and positions, one's tokens behind the other's.
            cache: all slots.
            keep: tokens of each row whose logits are wanted; of several batches less than all they have.

        Returns:
            Logits, ``[B x keep, vocab]`` fp32; ``None`` when none are wanted.
        """
        if self.stack is not None:
            return self._through(self.stack, x, table_rows, batches, cache, keep)
        kinds = set(self.config.layer_types)
        parts = {k: [Reach.of(self.config, batch, k, cache, x) for batch in batches] for k in kinds}
        reaches: dict[LayerType, AnyReach] = {
            kind: own[0] if len(own) == 1 else Together(tuple(own)) for kind, own in parts.items()
        }
        return self.run(x, table_rows, reaches, cache, keep)

    def run(
        self,
        x: Tensor,
        table_rows: Tensor,
        reaches: Mapping[LayerType, AnyReach],
        cache: KVCache,
        keep: int,
        through: Through = Layer.__call__,
    ) -> Tensor | None:
        """As above, with the reach of layers of each type given, and with what a layer is run through."""
        any_reach = reaches[self.config.layer_types[0]]
        tokens = any_reach.tokens
        lent: dict[LayerType, KV] = {}
        streams = self._streams.split(x)
        for number, given in zip(self._storing, self._storing_inputs(x, table_rows), strict=True):
            layer, going_on = self.layers[number], keep if number == self._storing[-1] else tokens
            reach, cached = reaches[layer.kind], cache.layers[number]
            streams, lent[layer.kind] = through(layer, streams, given, reach, cached, None, going_on)
        if not keep:
            return None
        x, table_rows = (any_reach.trim(t, keep) for t in (x, table_rows))
        reaches = {kind: reach.last(keep) for kind, reach in reaches.items()}
        for number, given in zip(self.sharing, self.sharing_inputs(x, table_rows), strict=True):
            layer = self.layers[number]
            reach, seen = reaches[layer.kind], lent[layer.kind]
            streams, _ = through(layer, streams, given, reach, None, seen, keep)
        return self._logits(self._norm(self._streams.merge(streams)))

    def _through(
        self,
        stack: Stack,
        x: Tensor,
        table_rows: Tensor,
        batches: Sequence[Batch],
        cache: KVCache,
        keep: int,
    ) -> Tensor | None:
        kept = last_rows(batches, keep)
        storing, streams = self._storing_inputs(x, table_rows), self._streams.split(x)
        if kept is not None:
            x, table_rows = x[kept], table_rows[kept]
        sharing = self.sharing_inputs(x, table_rows) if keep else ()
        streams = stack(streams, (*storing, *sharing), batches, cache, kept)
        return self._logits(self._norm(self._streams.merge(streams))) if keep else None

    def _logits(self, x: Tensor) -> Tensor:
        cap = self.config.final_logit_softcapping
        if self._compiled:
            capped: Tensor = kernels.ops.logits(x, self.embed.table, cap or 0.0)
            return capped
        logits = self._head(x).float()
        return logits if cap is None else torch.tanh(logits / cap) * cap
