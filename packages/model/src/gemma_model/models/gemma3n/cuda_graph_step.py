"""A decode step of fixed shapes and buffers, as a CUDA graph needs it.

A graph replays the same kernels on the same memory. So the inputs (token ids, slots, positions, rows of the
per-layer table) are in buffers, everything else is computed from them on the device, and no value comes back
to the host. The layers run by their own code; only the attention metadata is different.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gemma_model.device import to_device
from gemma_model.layers.attention_metadata import AnyMetadata
from gemma_model.layers.cuda_graph_attention import CudaGraphMetadata
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.config import LayerType
from gemma_model.models.gemma3n.decoder_layer import DecoderLayer, RunLayer

if TYPE_CHECKING:
    from gemma_model.models.gemma3n.decoder import Decoder


class CudaGraphStep:
    """One decode step.

    Missing rows are copies of the first one: they compute and write what it computes and writes.

    Args:
        decoder: with its weights.
        cache: all slots.
        rows: the number of rows in each step.
        columns: of full layers that are read; every position must be below.
        run_layer: runs a layer.
    """

    def __init__(
        self,
        decoder: "Decoder",
        cache: KVCache,
        rows: int,
        columns: int,
        run_layer: RunLayer = DecoderLayer.__call__,
    ) -> None:
        self._decoder, self._cache, self._columns, self._run_layer = decoder, cache, columns, run_layer
        weight, width = decoder.embed_tokens.weight, decoder.embed_tokens_per_layer.width
        self._inputs = torch.zeros(3, rows, dtype=torch.long, device=weight.device)  # ids, slots, positions
        self._table_rows = torch.zeros(rows, width, dtype=weight.dtype, device=weight.device)

    def fill(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> None:
        """Set the inputs of ``run``: at most ``rows`` new tokens, their slots and their positions."""
        missing = self._inputs.shape[1] - len(ids)
        inputs = [[*values, *[values[0]] * missing] for values in (ids, slots, positions)]
        self._inputs.copy_(to_device(torch.tensor(inputs), self._inputs.device))
        self._table_rows.copy_(self._decoder.embed_tokens_per_layer.rows(inputs[0], self._table_rows))

    def run(self) -> Tensor:
        """Logits, ``[rows, vocab]`` fp32; the keys and values go into the cache."""
        ids, slots, positions = self._inputs
        metadata: dict[LayerType, AnyMetadata] = {
            layer_type: CudaGraphMetadata.build_static(spec, self._cache, slots, positions, self._columns)
            for layer_type, spec in self._decoder.config.attention.items()
        }
        x = self._decoder.embed_tokens(ids)
        logits = self._decoder.run(x, self._table_rows, metadata, self._cache, 1, self._run_layer)
        assert logits is not None, "they were requested"
        return logits
