"""The inputs of a decode step of fixed shapes and buffers, as a CUDA graph needs it.

A graph replays the same kernels on the same memory. So the inputs (token ids, slots, positions) are in a
buffer, everything else is computed from them on the device, and no value comes back to the host.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gemma_model.device import to_device
from gemma_model.layers.attention_metadata import AnyMetadata
from gemma_model.layers.cuda_graph_attention import CudaGraphMetadata
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.specs import AttentionSpec, LayerType


class DecodeInputs:
    """Token ids, slots and positions of one new token per row.

    Missing rows are copies of the first one: they compute and write what it computes and writes.

    Args:
        attention: of each layer type.
        cache: all slots.
        rows: the number of rows in each step.
        columns: of full layers that are read; every position must be below.
    """

    def __init__(
        self, attention: Mapping[LayerType, AttentionSpec], cache: KVCache, rows: int, columns: int
    ) -> None:
        self._attention, self._cache, self._columns = attention, cache, columns
        self._inputs = torch.zeros(3, rows, dtype=torch.long, device=cache.layers[0].device)

    def fill(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> list[int]:
        """Set at most ``rows`` new tokens, their slots and their positions. Returns the ids of all rows."""
        missing = self._inputs.shape[1] - len(ids)
        inputs = [[*values, *[values[0]] * missing] for values in (ids, slots, positions)]
        self._inputs.copy_(to_device(torch.tensor(inputs), self._inputs.device))
        return inputs[0]

    @property
    def ids(self) -> Tensor:
        """Token ids, ``[rows]``."""
        return self._inputs[0]

    def metadata(self) -> dict[LayerType, AnyMetadata]:
        """The attention metadata of each layer type, computed on the device."""
        _, slots, positions = self._inputs
        return {
            layer_type: CudaGraphMetadata.build_static(spec, self._cache, slots, positions, self._columns)
            for layer_type, spec in self._attention.items()
        }
