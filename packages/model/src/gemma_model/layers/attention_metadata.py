"""What attention needs to know about a batch: which KV columns a query sees, where new keys are written.

Shapes: B rows (sequences) of T new tokens each, M = B x T tokens, L KV columns that are read, d head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from gemma_model.device import to_device
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.rotary import apply_rotary, rotary_cos_sin
from gemma_model.layers.specs import AttentionSpec

KV = tuple[Tensor, Tensor]
"""Keys and values that a batch attends to, each ``[B, kv_heads, L, d]``."""


@dataclass(frozen=True)
class Batch:
    """B rows of T new tokens. Those of row ``b`` have the positions ``starts[b] …`` of slot ``slots[b]``."""

    slots: Sequence[int]
    starts: Sequence[int]
    tokens: int


@dataclass(frozen=True)
class AttentionMetadata:
    """What a batch needs in the layers of one type.

    Args:
        tokens: new tokens of each row.
        groups: query heads per key head.
        bias: added to the scores, ``[B, T, L]``: 0 where a query sees a key, else minus infinity.
        cos: of the rotary angles, ``[M, 1, d]``.
        sin: the same; the first half is negated.
        read_columns: the first so many columns of the cache are read.
        concat_new: read the cache as it is, followed by the new keys, which are written afterwards.
        slots: where new keys are written, ``[B, 1]``.
        write_columns: and in which columns, ``[B, at most T]``: of a long chunk only what a ring can hold.
        first_slot: the slot of the first row if the others' follow in order, so that they are read as a view.
    """

    tokens: int
    groups: int
    bias: Tensor
    cos: Tensor
    sin: Tensor
    read_columns: int
    concat_new: bool
    slots: Tensor
    write_columns: Tensor
    first_slot: int | None = None

    @staticmethod
    def build(spec: AttentionSpec, batch: Batch, cache: KVCache, like: Tensor) -> "AttentionMetadata":
        """For layers of one type, on the device and in the dtype of ``like``.

        A chunk that would overwrite keys in the window of some of its queries is concatenated to the ring.
        """
        columns, window = cache.columns(spec.window), spec.window or cache.length
        wraps = columns < cache.length
        concat_new = spec.window is not None and wraps and batch.tokens > columns - window + 1
        written = 0 if concat_new else batch.tokens  # of the new tokens, when the cache is read
        starts, slots = (
            to_device(torch.tensor(x), like.device).unsqueeze(1) for x in (batch.starts, batch.slots)
        )
        queries = starts + torch.arange(batch.tokens, device=like.device)  # [B, T]
        read = min(columns, max(batch.starts) + written)
        keys = column_positions(read, starts + written - 1, columns)
        keys = torch.cat((keys, queries), dim=1) if concat_new else keys
        cos, sin = rotary_cos_sin(queries, spec)
        return AttentionMetadata(
            tokens=batch.tokens,
            groups=spec.query_groups,
            bias=attention_bias(queries, keys, window, like),
            cos=cos,
            sin=sin,
            read_columns=read,
            concat_new=concat_new,
            slots=slots,
            write_columns=queries[:, -columns:] % columns,
            first_slot=_first_of_neighbours(batch.slots),
        )

    @cached_property
    def mask(self) -> Tensor:
        """The bias for grouped queries, ``[B, 1, groups x T, L]``."""
        if self.bias.shape[1] == 1:
            return self.bias.unsqueeze(1)
        return self.bias.unsqueeze(1).expand(-1, self.groups, -1, -1).flatten(1, 2).unsqueeze(1)

    def update_cache(self, layer: Tensor, new: Tensor) -> KV:
        """Write new keys and values into a layer of the cache. Returns what the batch attends to.

        Args:
            layer: ``[slots, 2 x kv_heads, columns, d]``.
            new: ``[M, 2 x kv_heads, d]``.
        """
        new = new.view(-1, self.tokens, *new.shape[1:])  # [B, T, 2 x kv_heads, d]
        seen = torch.cat((self._read(layer), new.transpose(1, 2)), dim=2) if self.concat_new else None
        layer[self.slots, :, self.write_columns] = new[:, -self.write_columns.shape[1] :]
        keys, values = (self._read(layer) if seen is None else seen).chunk(2, dim=1)
        return keys, values

    def _read(self, layer: Tensor) -> Tensor:
        """The columns that are read; a view if the slots follow each other, else a copy."""
        if self.first_slot is None:
            return layer[self.slots[:, 0], :, : self.read_columns]
        return layer[self.first_slot : self.first_slot + len(self.slots), :, : self.read_columns]

    def rotate(self, x: Tensor) -> Tensor:
        """Apply rotary positions: ``[M, heads, d]`` → the same shape."""
        return apply_rotary(x, self.cos, self.sin)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Queries ``[M, heads, d]`` → ``[M, heads x d]``. The scores are not scaled."""
        count, tokens = len(self.slots), self.tokens
        shape = (count, tokens, keys.shape[1], self.groups, keys.shape[3])
        grouped = query.reshape(shape).permute(0, 2, 3, 1, 4).flatten(2, 3)  # [B, kv_heads, groups x T, d]
        seen = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=self.mask, scale=1.0)
        shape = (count, keys.shape[1], self.groups, tokens, keys.shape[3])
        return seen.view(shape).permute(0, 3, 1, 2, 4).reshape(query.shape[0], -1)

    def for_last(self, tokens: int) -> "AttentionMetadata":
        """For the last tokens of every row alone, in layers that write no keys."""
        if tokens == self.tokens:
            return self
        cos, sin = (last_of_rows(x, self.tokens, tokens) for x in (self.cos, self.sin))
        return replace(self, tokens=tokens, bias=self.bias[:, -tokens:], cos=cos, sin=sin)

    def last(self, x: Tensor, tokens: int) -> Tensor:
        """The last tokens of every row of ``[M, …]``."""
        return last_of_rows(x, self.tokens, tokens)


@dataclass(frozen=True)
class CombinedMetadata:
    """Several batches whose tokens are concatenated, so that all weights are read once for them.

    Its methods are those of ``AttentionMetadata``; keys and values are tuples of those of the parts.
    """

    parts: tuple[AttentionMetadata, ...]

    @cached_property
    def tokens(self) -> int:
        """Of all parts together; as an argument of ``last`` it means all tokens of each row."""
        return sum(self._sizes)

    @cached_property
    def _sizes(self) -> list[int]:
        return [part.tokens * len(part.slots) for part in self.parts]

    @cached_property
    def _cos_sin(self) -> tuple[Tensor, Tensor]:
        return torch.cat([part.cos for part in self.parts]), torch.cat([part.sin for part in self.parts])

    def rotate(self, x: Tensor) -> Tensor:
        """See ``AttentionMetadata``."""
        return apply_rotary(x, *self._cos_sin)

    def update_cache(self, layer: Tensor, new: Tensor) -> Any:
        """See ``AttentionMetadata``."""
        each = zip(self.parts, torch.split(new, self._sizes), strict=True)
        return tuple(zip(*(part.update_cache(layer, own) for part, own in each), strict=True))

    def attend(self, query: Tensor, keys: Any, values: Any) -> Tensor:
        """See ``AttentionMetadata``."""
        each = zip(self.parts, torch.split(query, self._sizes), keys, values, strict=True)
        return torch.cat([part.attend(*own) for part, *own in each])

    def for_last(self, tokens: int) -> "CombinedMetadata":
        """See ``AttentionMetadata``."""
        if tokens == self.tokens:
            return self
        return CombinedMetadata(tuple(part.for_last(tokens) for part in self.parts))

    def last(self, x: Tensor, tokens: int) -> Tensor:
        """See ``AttentionMetadata``."""
        if tokens == self.tokens:
            return x
        each = zip(self.parts, torch.split(x, self._sizes), strict=True)
        return torch.cat([part.last(own, tokens) for part, own in each])


AnyMetadata = AttentionMetadata | CombinedMetadata


def metadata_of(spec: AttentionSpec, batches: Sequence[Batch], cache: KVCache, like: Tensor) -> AnyMetadata:
    """For one batch, or for several whose tokens are concatenated; see ``AttentionMetadata.build``."""
    parts = tuple(AttentionMetadata.build(spec, batch, cache, like) for batch in batches)
    return parts[0] if len(parts) == 1 else CombinedMetadata(parts)


def last_of_rows(x: Tensor, of: int, tokens: int) -> Tensor:
    """The last tokens of every row: ``[B x of, …]`` → ``[B x tokens, …]``."""
    return x if tokens == of else x.view(-1, of, *x.shape[1:])[:, -tokens:].flatten(0, 1)


def column_positions(columns: int, last: Tensor, ring: int) -> Tensor:
    """The positions in the first columns of a ring, ``[B, columns]``.

    It is the last position up to ``last`` ``[B, 1]`` that is congruent to the column modulo the ring's size,
    and negative for a column that was never written.
    """
    return last - (last - torch.arange(columns, device=last.device)) % ring


def attention_bias(queries: Tensor, keys: Tensor, window: int, like: Tensor) -> Tensor:
    """Positions ``[B, T]``, ``[B, L]`` → ``[B, T, L]``: 0 where a query sees a key, else minus infinity."""
    query, key = queries.unsqueeze(2), keys.unsqueeze(1)
    hidden = (key < 0) | (key > query) | (key <= query - window)
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)


def _first_of_neighbours(slots: Sequence[int]) -> int | None:
    in_order = list(slots) == list(range(slots[0], slots[0] + len(slots)))
    return slots[0] if in_order else None
