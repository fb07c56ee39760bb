"""The KV cache: keys and values of all slots, one tensor for each layer that stores them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemma_model.cpu.kernels import is_finite
from gemma_model.layers.specs import LayerKVSpec


class KVCache:
    """One tensor per storing layer, ``[slots, 2 * num_kv_heads, columns, head_dim]``, keys before values.

    A layer without a window has a column for each position. A layer with one is a ring: position ``p`` is in
    column ``p % columns``, so only full layers grow with the context.

    Args:
        spec: of each layer of the model.
        slots: the number of sequences.
        length: token positions of each.
        extra_columns: columns of a ring beyond the window: so many tokens before the window are kept too.
        device: of the tensors.
        dtype: of the tensors.
    """

    def __init__(
        self,
        spec: Sequence[LayerKVSpec],
        slots: int,
        length: int,
        extra_columns: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.slots, self.length, self._spec, self._extra_columns = slots, length, tuple(spec), extra_columns
        # Zeros, not uninitialised memory: a masked NaN is still a NaN.
        self._stored = {
            number: torch.zeros(
                slots,
                2 * layer.num_kv_heads,
                layer.columns(length, extra_columns),
                layer.head_dim,
                dtype=dtype,
                device=device,
            )
            for number, layer in enumerate(self._spec)
            if layer.shared_with is None
        }
        self.layers = list(self._stored.values())
        self.windows = [self._spec[number].window for number in self._stored]

    def layer(self, number: int) -> Tensor:
        """The tensor that a layer reads: its own, or that of the layer it shares keys and values with."""
        shared_with = self._spec[number].shared_with
        return self._stored[number if shared_with is None else shared_with]

    def columns(self, window: int | None) -> int:
        """Columns of a layer with that window; the context's length without one."""
        return self.length if window is None else min(window + self._extra_columns, self.length)

    @property
    def window(self) -> int:
        """The smallest window of all layers; the context's length if no layer has one."""
        windows = (layer.window for layer in self._spec if layer.window is not None)
        return min(windows, default=self.length)

    @property
    def ring(self) -> int:
        """Columns of the layers with the smallest window: so many positions are kept in all layers."""
        return self.columns(self.window)

    def clear(self, slot: int) -> None:
        """Set a slot to zero in all layers."""
        for layer in self.layers:
            layer[slot].zero_()

    def clear_positions(self, slot: int, positions: range) -> None:
        """Set some positions of a slot, at most as many as a ring has columns, to zero in all layers."""
        for layer in self.layers:
            for columns in _columns_of(positions.start, positions.stop, layer.shape[2]):
                layer[slot, :, columns].zero_()

    def is_finite(self, slot: int, start: int, stop: int) -> bool:
        """Whether no stored key or value of the positions from ``start`` to ``stop`` is infinite or NaN."""
        parts = [
            layer[slot, :, columns]
            for layer in self.layers
            for columns in _columns_of(max(start, stop - layer.shape[2]), stop, layer.shape[2])
        ]
        return is_finite(parts)


def _columns_of(start: int, stop: int, ring: int) -> list[slice]:
    """The columns of at most ``ring`` positions: one slice, or two around the end of the ring."""
    first, end = start % ring, start % ring + stop - start
    return [slice(first, end)] if end <= ring else [slice(first, ring), slice(end - ring)]


def bytes_per_slot(spec: Sequence[LayerKVSpec], length: int, extra_columns: int, itemsize: int) -> int:
    """Bytes that one sequence of ``length`` positions takes in the cache."""
    stored = (layer for layer in spec if layer.shared_with is None)
    elements = sum(
        layer.columns(length, extra_columns) * 2 * layer.num_kv_heads * layer.head_dim for layer in stored
    )
    return elements * itemsize
