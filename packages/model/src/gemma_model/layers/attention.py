"""Attention of a batch of cache slots: each row at its own position, sliding layers in rings.

Shapes: B rows (sequences) of T new tokens each, M = B x T tokens, L keys in reach, d head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gemma_model.device import moved
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.linear import Linear, Norm
from gemma_model.models.gemma3n.config import LayerType, TextConfig
from gemma_model.weights import Weights

KV = tuple[Tensor, Tensor]
"""Keys and values that a batch attends to, each ``[B, kv_heads, L, d]``."""


@dataclass(frozen=True)
class Batch:
    """B rows of T new tokens; those of row ``b`` are positions ``starts[b] …`` of slot ``slots[b]``."""

    slots: Sequence[int]
    starts: Sequence[int]
    tokens: int


@dataclass(frozen=True)
class Reach:
    """What the queries of a batch see in layers of one type, and where their own keys go.

    Args:
        tokens: new ones of each row.
        groups: query heads per key head.
        visible: added to scores, ``[B, T, L]``: 0 where a query sees a key, else minus infinity.
        cos, sin: of the rotary angles, ``[M, 1, d]``, the first half of the sines negated.
        columns: of the cache that are read.
        joined: whether the batch's own keys come after those read, and go into the cache afterwards.
        slots: where the keys go, ``[B, 1]``.
        kept: and into which columns, ``[B, at most T]``: of a long chunk, only what a ring can hold.
        first: the first row's slot, when the others' follow in order and can be read where they are.
    """

    tokens: int
    groups: int
    visible: Tensor
    cos: Tensor
    sin: Tensor
    columns: int
    joined: bool
    slots: Tensor
    kept: Tensor
    first: int | None = None

    @staticmethod
    def of(config: TextConfig, batch: Batch, kind: LayerType, cache: KVCache, like: Tensor) -> "Reach":
        """The reach of a batch in layers of one type, on the device and in the dtype of ``like``.

        A chunk that would overwrite keys still in some query's window is joined to the ring as it was.
        """
        sliding, columns = kind == "sliding_attention", cache.columns(kind)
        window = config.sliding_window if sliding else cache.length
        joined = sliding and cache.wraps and batch.tokens > columns - window + 1
        written = 0 if joined else batch.tokens  # of the batch's own tokens, when it reads
        starts, slots = (
            moved(torch.tensor(x), like.device).unsqueeze(1) for x in (batch.starts, batch.slots)
        )
        queries = starts + torch.arange(batch.tokens, device=like.device)  # [B, T]
        seen = min(columns, max(batch.starts) + written)
        keys = positions_in(seen, starts + written - 1, columns)
        cos, sin = rotation(queries, config.rope_theta[kind], config.head_dim)
        return Reach(
            tokens=batch.tokens,
            groups=config.query_groups,
            visible=visible(queries, torch.cat((keys, queries), dim=1) if joined else keys, window, like),
            cos=cos,
            sin=sin,
            columns=seen,
            joined=joined,
            slots=slots,
            kept=queries[:, -columns:] % columns,
            first=_first_of_neighbours(batch.slots),
        )

    @cached_property
    def mask(self) -> Tensor:
        """As ``visible``, ``[B, 1, groups x T, L]``: query heads of one key head side by side."""
        if self.visible.shape[1] == 1:
            return self.visible.unsqueeze(1)
        return self.visible.unsqueeze(1).expand(-1, self.groups, -1, -1).flatten(1, 2).unsqueeze(1)

    def store(self, layer: Tensor, fresh: Tensor) -> KV:
        """Put the new keys and values into a layer of the cache; what the batch attends to.

        Args:
            layer: ``[slots, 2 x kv_heads, columns, d]``.
            fresh: ``[M, 2 x kv_heads, d]``.
        """
        fresh = fresh.view(-1, self.tokens, *fresh.shape[1:])  # [B, T, 2 x kv_heads, d]
        seen = torch.cat((self._read(layer), fresh.transpose(1, 2)), dim=2) if self.joined else None
        layer[self.slots, :, self.kept] = fresh[:, -self.kept.shape[1] :]
        keys, values = (self._read(layer) if seen is None else seen).chunk(2, dim=1)
        return keys, values

    def _read(self, layer: Tensor) -> Tensor:
        """The columns in reach; a view when the slots are neighbours in order, else a copy."""
        if self.first is None:
            return layer[self.slots[:, 0], :, : self.columns]
        return layer[self.first : self.first + len(self.slots), :, : self.columns]

    def rotate(self, x: Tensor) -> Tensor:
        """Rotary positions: ``[M, heads, d]`` → the same."""
        return _rotated(x, self.cos, self.sin)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``[M, heads, d]`` queries → ``[M, heads x d]``; the norms have scaled the scores already."""
        count, tokens = len(self.slots), self.tokens
        shape = (count, tokens, keys.shape[1], self.groups, keys.shape[3])
        grouped = query.reshape(shape).permute(0, 2, 3, 1, 4).flatten(2, 3)  # [B, kv_heads, groups x T, d]
        seen = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=self.mask, scale=1.0)
        shape = (count, keys.shape[1], self.groups, tokens, keys.shape[3])
        return seen.view(shape).permute(0, 3, 1, 2, 4).reshape(query.shape[0], -1)

    def last(self, tokens: int) -> "Reach":
        """Of the last tokens of every row; for layers that only read."""
        if tokens == self.tokens:
            return self
        cos, sin = (last_tokens(x, self.tokens, tokens) for x in (self.cos, self.sin))
        return replace(self, tokens=tokens, visible=self.visible[:, -tokens:], cos=cos, sin=sin)

    def trim(self, x: Tensor, tokens: int) -> Tensor:
        """The last tokens of each row, of ``[M, …]``."""
        return last_tokens(x, self.tokens, tokens)


@dataclass(frozen=True)
class Together:
    """Several batches, one's tokens behind the other's: all but attention is done for all of them at once.

    Its methods are those of ``Reach``; keys and values are those of each part.
    """

    parts: tuple[Reach, ...]

    @cached_property
    def tokens(self) -> int:
        """Of all parts; they are rows of different lengths, so it stands for all of each."""
        return sum(self._sizes)

    @cached_property
    def _sizes(self) -> list[int]:
        return [part.tokens * len(part.slots) for part in self.parts]

    @cached_property
    def _rotary(self) -> tuple[Tensor, Tensor]:
        return torch.cat([part.cos for part in self.parts]), torch.cat([part.sin for part in self.parts])

    def rotate(self, x: Tensor) -> Tensor:
        """See ``Reach``."""
        return _rotated(x, *self._rotary)

    def store(self, layer: Tensor, fresh: Tensor) -> Any:
        """See ``Reach``."""
        each = zip(self.parts, torch.split(fresh, self._sizes), strict=True)
        return tuple(zip(*(part.store(layer, own) for part, own in each), strict=True))

    def attend(self, query: Tensor, keys: Any, values: Any) -> Tensor:
        """See ``Reach``."""
        each = zip(self.parts, torch.split(query, self._sizes), keys, values, strict=True)
        return torch.cat([part.attend(*own) for part, *own in each])

    def last(self, tokens: int) -> "Together":
        """See ``Reach``."""
        if tokens == self.tokens:
            return self
        return Together(tuple(part.last(tokens) for part in self.parts))

    def trim(self, x: Tensor, tokens: int) -> Tensor:
        """See ``Reach``."""
        if tokens == self.tokens:
            return x
        each = zip(self.parts, torch.split(x, self._sizes), strict=True)
        return torch.cat([part.trim(own, tokens) for part, own in each])


AnyReach = Reach | Together


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


def last_tokens(x: Tensor, of: int, tokens: int) -> Tensor:
    """``[B x of, …]`` → ``[B x tokens, …]``: the last ones of each row."""
    return x if tokens == of else x.view(-1, of, *x.shape[1:])[:, -tokens:].flatten(0, 1)


def positions_in(columns: int, last: Tensor, ring: int) -> Tensor:
    """The positions for which the first columns of a ring stand, ``[B, columns]``.

    It is the last one written, up to ``last`` ``[B, 1]``, that is the column modulo the ring's size; for a
    column never written that is negative.
    """
    return last - (last - torch.arange(columns, device=last.device)) % ring


def _first_of_neighbours(slots: Sequence[int]) -> int | None:
    in_order = list(slots) == list(range(slots[0], slots[0] + len(slots)))
    return slots[0] if in_order else None


def visible(queries: Tensor, keys: Tensor, window: int, like: Tensor) -> Tensor:
    """``[B, T]`` and ``[B, L]`` positions → ``[B, T, L]``."""
    query, key = queries.unsqueeze(2), keys.unsqueeze(1)
    hidden = (key < 0) | (key > query) | (key <= query - window)
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)


def rotation(positions: Tensor, theta: float, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, ``[M, 1, width]`` fp32; the first half of the sines negated."""
    halves = torch.arange(0, width, 2, dtype=torch.float, device=positions.device) / width
    angles = positions.reshape(-1, 1, 1).float() * (1.0 / theta**halves)  # [M, 1, d / 2]
    return angles.cos().repeat(1, 1, 2), torch.cat((-angles.sin(), angles.sin()), dim=-1)


class Attention:
    """One layer's attention; a KV-shared layer has queries alone, and reads what another layer stored.

    Args:
        weights: of the checkpoint.
        layer: its number.
    """

    def __init__(self, config: TextConfig, weights: Weights, layer: int) -> None:
        prefix = f"layers.{layer}.self_attn."
        self.stores = layer < config.first_kv_shared_layer
        self.heads, self._width = config.num_attention_heads, config.head_dim
        self._norm = Norm(config.head_dim, config.rms_norm_eps)  # the factors differ from head to head
        if not self.stores:
            names = (f"{prefix}{name}.weight" for name in ("k_proj", "v_proj", "k_norm", "v_norm"))
            weights.leave(
                names, f"layer {layer} reads the keys and values of layer {config.kv_source(layer)}"
            )
        kinds = ("q", "k", "v") if self.stores else ("q",)
        into = torch.cat([weights.take(f"{prefix}{kind}_proj.weight") for kind in kinds])
        self.into = Linear(into)
        self.out_of = Linear(weights.take(prefix + "o_proj.weight"))
        scale = weights.take(prefix + "q_norm.weight").float().expand(self.heads, -1)
        if self.stores:
            key_scale = weights.take(prefix + "k_norm.weight").float().expand(config.num_key_value_heads, -1)
            scale = torch.cat((scale, key_scale, torch.ones_like(key_scale)))  # values are normed, not scaled
        self.scale = scale.contiguous()  # [heads, d]
        self._rotated = self.heads + (config.num_key_value_heads if self.stores else 0)

    def project(self, x: Tensor, reach: AnyReach, layer: Tensor | None, lent: KV | None) -> tuple[Tensor, KV]:
        """``[M, H]`` → queries ``[M, heads, d]``, and the keys and values that they see.

        Args:
            x: the normed stream.
            reach: of layers of this type.
            layer: its part of the cache; for a storing layer.
            lent: what a lender returned; for a KV-shared layer.
        """
        heads = self.into(x).view(x.shape[0], -1, self._width).float()
        heads = self._norm(heads) * self.scale
        rotated = reach.rotate(heads[:, : self._rotated]).to(x.dtype)
        if layer is not None:
            values = heads[:, self._rotated :].to(x.dtype)
            lent = reach.store(layer, torch.cat((rotated[:, self.heads :], values), dim=1))
        assert lent is not None, "a KV-shared layer needs a lender"
        return rotated[:, : self.heads], lent

    def attend(self, query: Tensor, reach: AnyReach, seen: KV) -> Tensor:
        """Queries ``[M, heads, d]`` → ``[M, H]``."""
        return self.out_of(reach.attend(query, *seen))
