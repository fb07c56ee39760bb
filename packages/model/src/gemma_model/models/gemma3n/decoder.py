"""The text decoder of Gemma 3n: tokens of a batch of slots, each at its own position, to logits.

Shapes: B rows of T new tokens each, M = B x T tokens, N AltUp streams, H hidden, P per-layer input.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from gemma_model.device import to_device
from gemma_model.layers.attention_metadata import KV, AnyMetadata, Batch, metadata_of
from gemma_model.layers.compiled_layers import compiled_layers
from gemma_model.layers.cuda_graph_step import CudaGraphStep
from gemma_model.layers.embedding import OutputHead, ScaledEmbedding
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.rms_norm import RMSNorm
from gemma_model.layers.specs import LayerKVSpec, LayerType
from gemma_model.models.gemma3n.altup import AltUpProjections
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.cpu_layers import FusedLayers, last_rows, supports
from gemma_model.models.gemma3n.decoder_layer import Gemma3nDecoderLayer, RunLayer
from gemma_model.models.gemma3n.nested_models import NestedModel
from gemma_model.models.gemma3n.per_layer_embeddings import PerLayerInputs, PerLayerTable
from gemma_model.weights import Weights


class Embedding(ScaledEmbedding):
    """Token ids to the decoder's input; ids of the towers have embeddings of their own.

    A GGUF file may lack the rows of these ids. Then ids without an embedding get that of the last row.
    """

    _hard: tuple[int, Tensor] | None = None

    def set_hard_embeddings(self, offset: int, embeddings: Tensor) -> None:
        """Set the embeddings ``[n, H]`` of the ids from ``offset`` on, which are those of the towers."""
        self._hard = offset, embeddings

    def __call__(self, ids: Tensor) -> Tensor:
        """``[M]`` → ``[M, H]``."""
        embedded = super().__call__(ids.clamp(max=self.weight.shape[0] - 1))
        if self._hard is None:
            return embedded
        offset, table = self._hard
        places = ids - offset
        known = places.clamp(0, len(table) - 1)
        return torch.where((known == places).unsqueeze(1), F.embedding(known, table), embedded)


class Gemma3nDecoder:
    """All layers and the output head.

    Args:
        weights: of the checkpoint. All of its text part is taken.
        table_on_device: keep the per-layer table on the device too.
    """

    def __init__(self, config: Gemma3nDecoderConfig, weights: Weights, table_on_device: bool = False) -> None:
        self.config, self._cpu_kernels = config, weights.cpu_kernels and supports(config)
        self.embed_tokens = Embedding(config.hidden_size, weights)
        self.embed_tokens_per_layer = PerLayerTable(config, weights, table_on_device)

        def norm_of(width: int, name: str) -> RMSNorm:
            return RMSNorm(width, config.rms_norm_eps, weights.take(f"{name}.weight"), weights.cpu_kernels)

        norm = norm_of(config.hidden_size_per_layer_input, "per_layer_projection_norm")
        projection = weights.take_matrix("per_layer_model_projection.weight")
        self._inputs_of = partial(PerLayerInputs, config, projection, norm, weights.cpu_kernels)
        self._storing = range(config.first_kv_shared_layer)
        self.sharing = range(config.first_kv_shared_layer, config.num_hidden_layers)
        self._storing_inputs = self._inputs_of(self._storing)
        self.sharing_inputs = self._inputs_of(self.sharing)
        self._altup_projections = AltUpProjections(config, weights)
        self.layers = [
            Gemma3nDecoderLayer(config, weights, number) for number in range(config.num_hidden_layers)
        ]
        self._norm = norm_of(config.hidden_size, "norm")
        cap = config.final_logit_softcapping
        weight = self.embed_tokens.weight
        self._head = OutputHead(weight, cap, self._cpu_kernels, max(0, config.vocab_size - weight.shape[0]))
        self.fused_layers = self.fused()

    @property
    def vocab_size(self) -> int:
        """The number of logits."""
        return self.config.vocab_size

    @property
    def cache_spec(self) -> Sequence[LayerKVSpec]:
        """What each layer keeps in the KV cache."""
        return self.config.cache_spec

    @property
    def dtype(self) -> torch.dtype:
        """Of the computation."""
        return self.embed_tokens.weight.dtype

    def nested(self, nested: NestedModel) -> "Gemma3nDecoder":
        """A model nested in this one, with the same tensors. It may use the same cache, but not its contents.

        Raises:
            InvalidRequest: when this model does not have it.
        """
        nested.check(self.config)
        other = copy(self)
        first = self.config.first_kv_shared_layer + len(nested.skipped)
        other.sharing = range(first, self.config.num_hidden_layers)
        other.sharing_inputs = self._inputs_of(other.sharing)
        other.layers = [
            layer if number in nested.skipped else layer.narrowed(nested.size_of(number))
            for number, layer in enumerate(self.layers)
        ]
        other.fused_layers = other.fused()
        return other

    def cuda_graph_step(self, cache: KVCache, rows: int, columns: int, compiled: bool) -> CudaGraphStep:
        """See ``Model.cuda_graph_step``."""
        run_layer = (
            compiled_layers(Gemma3nDecoderLayer.__call__) if compiled else Gemma3nDecoderLayer.__call__
        )
        return self.step_through(run_layer, cache, rows, columns)

    def step_through(self, run_layer: RunLayer, cache: KVCache, rows: int, columns: int) -> CudaGraphStep:
        """A decode step for CUDA graphs, whose layers are run by ``run_layer``."""
        table, weight = self.embed_tokens_per_layer, self.embed_tokens.weight
        table_rows = torch.zeros(rows, table.width, dtype=weight.dtype, device=weight.device)

        def fill(ids: Sequence[int]) -> None:
            table_rows.copy_(table.rows(ids, table_rows))

        def run(ids: Tensor, metadata: Mapping[LayerType, AnyMetadata]) -> Tensor | None:
            return self.run(self.embed_tokens(ids), table_rows, metadata, cache, 1, run_layer)

        return CudaGraphStep(self.config.attention, cache, rows, columns, run, fill)

    def fused(self) -> FusedLayers | None:
        """The layers for the C++ kernels, if these can be used."""
        if not self._cpu_kernels:
            return None
        numbers = (*self._storing, *self.sharing)
        layers = [(number, self.layers[number]) for number in numbers]
        return FusedLayers(self.config, layers, last=len(self._storing) - 1)

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Token ids → embeddings, ``[M, H]``."""
        return self.embed_tokens(to_device(torch.tensor(ids), self.embed_tokens.weight.device))

    def prefill(
        self, ids: Sequence[int], x: Tensor, batches: Sequence[Batch], cache: KVCache, keep: int
    ) -> Tensor | None:
        """As ``__call__``, with the token ids ``ids`` of the embeddings ``x``."""
        return self(x, self.embed_tokens_per_layer.rows(ids, x), batches, cache, keep)

    def decode(
        self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int], cache: KVCache
    ) -> Tensor:
        """One new token of each row: its logits, ``[B, vocab]`` fp32."""
        logits = self.prefill(ids, self.embed(ids), [Batch(slots, positions, 1)], cache, keep=1)
        assert logits is not None, "they were requested"
        return logits

    def __call__(
        self, x: Tensor, table_rows: Tensor, batches: Sequence[Batch], cache: KVCache, keep: int
    ) -> Tensor | None:
        """Run batches in different slots, and write their keys and values into the cache.

        All weights are read once for all batches. Only the last ``keep`` tokens of each row go through the
        last storing layer after its keys and values, and through the layers that store none. That is exact,
        for no other token depends on these results.

        Args:
            x: embeddings, ``[M, H]``.
            table_rows: of the per-layer table, ``[M, layers x P]``.
            batches: slots and positions; the tokens of all batches are concatenated.
            cache: all slots.
            keep: tokens of each row whose logits are wanted; with several batches fewer than any has.

        Returns:
            Logits, ``[B x keep, vocab]`` fp32; ``None`` if none are wanted.
        """
        if self.fused_layers is not None:
            return self._run_fused(self.fused_layers, x, table_rows, batches, cache, keep)
        metadata = {
            layer_type: metadata_of(spec, batches, cache, x)
            for layer_type, spec in self.config.attention.items()
        }
        return self.run(x, table_rows, metadata, cache, keep)

    def run(
        self,
        x: Tensor,
        table_rows: Tensor,
        metadata: Mapping[LayerType, AnyMetadata],
        cache: KVCache,
        keep: int,
        run_layer: RunLayer = Gemma3nDecoderLayer.__call__,
    ) -> Tensor | None:
        """As ``__call__``, layer by layer, with the attention metadata of each layer type."""
        any_type = metadata[self.config.layer_types[0]]
        shared_kv: dict[LayerType, KV] = {}
        streams = self._altup_projections.split(x)
        for number, given in zip(self._storing, self._storing_inputs(x, table_rows), strict=True):
            layer, kept = self.layers[number], keep if number == self._storing[-1] else any_type.tokens
            own, kind = cache.layer(number), layer.layer_type
            streams, shared_kv[kind] = run_layer(layer, streams, given, metadata[kind], own, None, kept)
        if not keep:
            return None
        x, table_rows = (any_type.last(t, keep) for t in (x, table_rows))
        metadata = {kind: own.for_last(keep) for kind, own in metadata.items()}
        for number, given in zip(self.sharing, self.sharing_inputs(x, table_rows), strict=True):
            layer, kind = self.layers[number], self.layers[number].layer_type
            streams, _ = run_layer(layer, streams, given, metadata[kind], None, shared_kv[kind], keep)
        return self._logits(streams)

    def _run_fused(
        self,
        layers: FusedLayers,
        x: Tensor,
        table_rows: Tensor,
        batches: Sequence[Batch],
        cache: KVCache,
        keep: int,
    ) -> Tensor | None:
        kept = last_rows(batches, keep)
        storing, streams = self._storing_inputs(x, table_rows), self._altup_projections.split(x)
        if kept is not None:
            x, table_rows = x[kept], table_rows[kept]
        sharing = self.sharing_inputs(x, table_rows) if keep else ()
        streams = layers(streams, (*storing, *sharing), batches, cache, kept)
        return self._logits(streams) if keep else None

    def _logits(self, streams: Tensor) -> Tensor:
        return self._head(self._norm(self._altup_projections.merge(streams)))
