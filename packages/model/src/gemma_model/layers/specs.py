"""What a model family says about its attention layers and about its KV cache."""

from dataclasses import dataclass
from typing import Literal

LayerType = Literal["sliding_attention", "full_attention"]
LAYER_TYPES: tuple[LayerType, ...] = ("sliding_attention", "full_attention")


@dataclass(frozen=True)
class Rope:
    """Rotary positions.

    Args:
        theta: base of the frequencies.
        factor: positions are divided by it, which extends the context (linear scaling).
    """

    theta: float
    factor: float = 1.0


@dataclass(frozen=True)
class AttentionSpec:
    """What the attention layers of one type have in common.

    Args:
        num_heads: query heads.
        num_kv_heads: key heads, and as many value heads.
        head_dim: of each head.
        rope: rotary positions.
        window: token positions that a query sees, its own included; ``None``: all.
        query_scale: of the queries after their norm.
        norm_offset: added to the weights of the query and key norms.
        norm_values: whether values have a norm, which has no weights.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: Rope
    window: int | None = None
    query_scale: float = 1.0
    norm_offset: float = 0.0
    norm_values: bool = True

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

    def columns(self, length: int, extra_columns: int) -> int:
        """Columns for a context of ``length`` positions: a ring in a layer with a window."""
        return length if self.window is None else min(self.window + extra_columns, length)
