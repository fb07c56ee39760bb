"""A decode step of fixed shapes and buffers, as a CUDA graph needs it.

The layers run by their own code; only the attention metadata is different.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from gemma_model.layers.decode_inputs import DecodeInputs
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3.decoder_layer import DecoderLayer, RunLayer

if TYPE_CHECKING:
    from gemma_model.models.gemma3.decoder import Decoder


class CudaGraphStep:
    """One decode step.

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

    def fill(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> None:
        """Set the inputs of ``run``: at most ``rows`` new tokens, their slots and their positions."""
        self._inputs.fill(ids, slots, positions)

    def run(self) -> Tensor:
        """Logits, ``[rows, vocab]`` fp32; the keys and values go into the cache."""
        x, metadata = self._decoder.embed_tokens(self._inputs.ids), self._inputs.metadata()
        logits = self._decoder.run(x, metadata, self._cache, 1, self._run_layer)
        assert logits is not None, "they were requested"
        return logits
