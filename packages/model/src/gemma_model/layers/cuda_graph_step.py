"""A decode step of fixed shapes and buffers, as a CUDA graph needs it.

A graph replays the same kernels on the same memory. So the inputs (token ids, slots, positions) are in a
buffer, everything else is computed from them on the device, and no value comes back to the host. The layers
run by their own code; only the attention metadata is different.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gemma_model.device import to_device
from gemma_model.layers.attention_metadata import AnyMetadata
from gemma_model.layers.cuda_graph_attention import CudaGraphMetadata
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.specs import AttentionSpec, LayerType

RunDecoder = Callable[[Tensor, Mapping[LayerType, AnyMetadata]], Tensor | None]
"""From token ids ``[rows]`` and each layer type's attention metadata to logits ``[rows, vocab]`` fp32."""


class CudaGraphStep:
    """One new token of each row.

    Missing rows are copies of the first one: they compute and write what it computes and writes.

    Args:
        attention: of each layer type.
        cache: all slots.
        rows: the number of rows in each step.
        columns: of full layers that are read; every position must be below.
        run_decoder: runs the decoder; keys and values go into the cache.
        fill_rows: fills buffers of the decoder's own, given the token ids of all rows, if it has any.
    """

    def __init__(
        self,
        attention: Mapping[LayerType, AttentionSpec],
        cache: KVCache,
        rows: int,
        columns: int,
        run_decoder: RunDecoder,
        fill_rows: Callable[[Sequence[int]], object] | None = None,
    ) -> None:
        self._attention, self._cache, self._columns = attention, cache, columns
        self._run_decoder, self._fill_rows = run_decoder, fill_rows
        self._inputs = torch.zeros(3, rows, dtype=torch.long, device=cache.layers[0].device)

    def fill(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> None:
        """Set the inputs of ``run``: at most ``rows`` new tokens, their slots and their positions."""
        missing = self._inputs.shape[1] - len(ids)
        inputs = [[*values, *[values[0]] * missing] for values in (ids, slots, positions)]
        self._inputs.copy_(to_device(torch.tensor(inputs), self._inputs.device))
        if self._fill_rows is not None:
            self._fill_rows(inputs[0])

    def run(self) -> Tensor:
        """Logits, ``[rows, vocab]`` fp32; the keys and values go into the cache."""
        ids, slots, positions = self._inputs
        metadata = {
            layer_type: CudaGraphMetadata.build_static(spec, self._cache, slots, positions, self._columns)
            for layer_type, spec in self._attention.items()
        }
        logits = self._run_decoder(ids, metadata)
        assert logits is not None, "they were requested"
        return logits
