"""Keys and values of all slots: plain tensors of the layers that store them, rings where the layer slides."""

import torch

from gemma_model.cpu.kernels import is_finite
from gemma_model.models.gemma3n.config import LayerType, TextConfig


class KVCache:
    """One tensor per storing layer, ``[slots, 2 * kv_heads, columns, head_dim]``, keys before values.

    A full layer has a column per position. A sliding layer has ``ring`` columns and keeps position ``p`` in
    column ``p % ring``, so the cache grows with the context in the full layers alone.

    Args:
        slots: sequences that fit.
        length: positions of each.
        rewind: columns of a ring beyond the window: so many tokens can be taken back once a ring has wrapped.
    """

    def __init__(
        self,
        config: TextConfig,
        slots: int,
        length: int,
        rewind: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.slots, self.length, self.ring = slots, length, ring_columns(config, length, rewind)
        stored = config.layer_types[: config.first_kv_shared_layer]
        heads, width = 2 * config.num_key_value_heads, config.head_dim
        # Zeros, not whatever memory holds: a masked NaN is still a NaN.
        self.layers = [
            torch.zeros(slots, heads, self.columns(kind), width, dtype=dtype, device=device)
            for kind in stored
        ]

    def columns(self, kind: LayerType) -> int:
        """Columns of a layer of that type."""
        return self.ring if kind == "sliding_attention" else self.length

    def clear(self, slot: int) -> None:
        """Forget what a slot holds, whatever that is."""
        for layer in self.layers:
            layer[slot].zero_()

    def is_finite(self, slot: int, start: int, stop: int, compiled: bool = False) -> bool:
        """Whether no key or value that a slot holds of some positions is infinite or NaN.

        Args:
            slot: its number.
            start: the first position.
            stop: one beyond the last.
            compiled: look by the CPU's kernels, which must be loaded.
        """
        parts = [
            layer[slot, :, columns]
            for layer in self.layers
            for columns in _columns_of(max(start, stop - layer.shape[2]), stop, layer.shape[2])
        ]
        return is_finite(parts, compiled)

    @property
    def wraps(self) -> bool:
        """Whether a ring ever comes to its end."""
        return self.ring < self.length


def _columns_of(start: int, stop: int, ring: int) -> list[slice]:
    """The columns of at most ``ring`` positions: one piece, or two around the ring's end."""
    first, end = start % ring, start % ring + stop - start
    return [slice(first, end)] if end <= ring else [slice(first, ring), slice(end - ring)]


def ring_columns(config: TextConfig, length: int, rewind: int) -> int:
    """Columns of a sliding layer; never more than there are positions."""
    return min(config.sliding_window + rewind, length)


def bytes_per_slot(config: TextConfig, length: int, rewind: int, itemsize: int) -> int:
    """Bytes that one sequence of ``length`` positions takes in the cache."""
    stored = config.layer_types[: config.first_kv_shared_layer]
    ring = ring_columns(config, length, rewind)
    columns = sum(ring if kind == "sliding_attention" else length for kind in stored)
    return columns * 2 * config.num_key_value_heads * config.head_dim * itemsize
