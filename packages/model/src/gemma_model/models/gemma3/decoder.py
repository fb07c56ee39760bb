"""The text decoder of Gemma 3: tokens of a batch of slots, each at its own position, to logits.

Shapes: B rows of T new tokens each, M = B x T tokens, H hidden.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gemma_model.device import to_device
from gemma_model.layers.attention_metadata import AnyMetadata, Batch, metadata_of
from gemma_model.layers.compiled_layers import compiled_layers
from gemma_model.layers.cuda_graph_step import CudaGraphStep
from gemma_model.layers.embedding import OutputHead, ScaledEmbedding
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.specs import LayerKVSpec, LayerType
from gemma_model.models.gemma3.config import Gemma3DecoderConfig
from gemma_model.models.gemma3.decoder_layer import Gemma3DecoderLayer, RunLayer, load_norm
from gemma_model.weights import Weights


class Gemma3Decoder:
    """All layers and the output head.

    Args:
        weights: of the checkpoint. All of its text part is taken.
    """

    def __init__(self, config: Gemma3DecoderConfig, weights: Weights) -> None:
        self.config = config
        self.embed_tokens = ScaledEmbedding(config.hidden_size, weights)
        self.layers = [
            Gemma3DecoderLayer(config, weights, number) for number in range(config.num_hidden_layers)
        ]
        self._norm = load_norm(config, weights, "norm")
        cap = config.final_logit_softcapping
        self._head = OutputHead(self.embed_tokens.weight, cap, weights.cpu_kernels)

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

    def cuda_graph_step(self, cache: KVCache, rows: int, columns: int, compiled: bool) -> CudaGraphStep:
        """See ``Model.cuda_graph_step``."""
        run_layer = compiled_layers(Gemma3DecoderLayer.__call__) if compiled else Gemma3DecoderLayer.__call__
        return self.step_through(run_layer, cache, rows, columns)

    def step_through(self, run_layer: RunLayer, cache: KVCache, rows: int, columns: int) -> CudaGraphStep:
        """A decode step for CUDA graphs, whose layers are run by ``run_layer``."""

        def run(ids: Tensor, metadata: Mapping[LayerType, AnyMetadata]) -> Tensor | None:
            return self.run(self.embed_tokens(ids), metadata, cache, 1, run_layer)

        return CudaGraphStep(self.config.attention, cache, rows, columns, run)

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Token ids → embeddings, ``[M, H]``."""
        return self.embed_tokens(to_device(torch.tensor(ids), self.embed_tokens.weight.device))

    def prefill(
        self,
        ids: Sequence[int],  # noqa: ARG002 - of the protocol; other families have tables of their own
        x: Tensor,
        batches: Sequence[Batch],
        cache: KVCache,
        keep: int,
    ) -> Tensor | None:
        """See ``Model.prefill``. Only the last ``keep`` tokens of each row go through all of the last layer.

        That is exact, for no other token depends on these results.
        """
        metadata = {
            layer_type: metadata_of(spec, batches, cache, x)
            for layer_type, spec in self.config.attention.items()
        }
        return self.run(x, metadata, cache, keep)

    def decode(
        self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int], cache: KVCache
    ) -> Tensor:
        """One new token of each row: its logits, ``[B, vocab]`` fp32."""
        logits = self.prefill(ids, self.embed(ids), [Batch(slots, positions, 1)], cache, keep=1)
        assert logits is not None, "they were requested"
        return logits

    def run(
        self,
        x: Tensor,
        metadata: Mapping[LayerType, AnyMetadata],
        cache: KVCache,
        keep: int,
        run_layer: RunLayer = Gemma3DecoderLayer.__call__,
    ) -> Tensor | None:
        """As ``prefill``, with the attention metadata of each layer type."""
        *others, last = enumerate(self.layers)
        for number, layer in others:
            own = metadata[layer.layer_type]
            x = run_layer(layer, x, own, cache.layer(number), own.tokens)
        number, layer = last
        x = run_layer(layer, x, metadata[layer.layer_type], cache.layer(number), keep)
        return self._head(self._norm(x)) if keep else None
