"""A decode step of fixed shapes and buffers, as a CUDA graph needs it.

The layers run by their own code; only the attention metadata is different.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gemma_model.layers.decode_inputs import DecodeInputs
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.decoder_layer import DecoderLayer, RunLayer

if TYPE_CHECKING:
    from gemma_model.models.gemma3n.decoder import Decoder


class CudaGraphStep:
    """One decode step. Its inputs also are rows of the per-layer table.

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
        self._decoder, self._cache, self._run_layer = decoder, cache, run_layer
        self._inputs = DecodeInputs(decoder.config.attention, cache, rows, columns)
        weight, width = decoder.embed_tokens.weight, decoder.embed_tokens_per_layer.width
        self._table_rows = torch.zeros(rows, width, dtype=weight.dtype, device=weight.device)

    def fill(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> None:
        """Set the inputs of ``run``: at most ``rows`` new tokens, their slots and their positions."""
        all_ids = self._inputs.fill(ids, slots, positions)
        self._table_rows.copy_(self._decoder.embed_tokens_per_layer.rows(all_ids, self._table_rows))

    def run(self) -> Tensor:
        """Logits, ``[rows, vocab]`` fp32; the keys and values go into the cache."""
        x, metadata = self._decoder.embed_tokens(self._inputs.ids), self._inputs.metadata()
        logits = self._decoder.run(x, self._table_rows, metadata, self._cache, 1, self._run_layer)
        assert logits is not None, "they were requested"
        return logits
