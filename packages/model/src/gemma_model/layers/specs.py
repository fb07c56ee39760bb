"""What a model family says about its attention layers and about its KV cache."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionSpec:
    """What the attention layers of one type have in common.

    Args:
        num_heads: query heads.
        num_kv_heads: key heads, and as many value heads.
        head_dim: of each head.
        rope_theta: base of the rotary frequencies.
        window: token positions that a query sees, its own included; ``None``: all.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    window: int | None = None

    @property
    def query_groups(self) -> int:
        """Query heads per key head."""
        return self.num_heads // self.num_kv_heads


@dataclass(frozen=True)
class LayerKVSpec:
    """What one layer keeps in the cache.

    Args:
        num_kv_heads: key heads, and as many value heads.
        head_dim: of each.
        window: token positions that a query sees, its own included; ``None``: all.
        shared_with: the layer whose keys and values this one reads; ``None``: it stores its own.
    """

    num_kv_heads: int
    head_dim: int
    window: int | None = None
    shared_with: int | None = None

    def columns(self, length: int, rewind: int) -> int:
        """Columns for a context of ``length`` positions: a ring in a layer with a window."""
        return length if self.window is None else min(self.window + rewind, length)
