"""One new token for each row of a batch, with shapes and buffers that never change, as a CUDA graph needs it.

A graph replays what it recorded: the same kernels on the same memory. So what a step is told (token ids,
slots, positions, rows of the per-layer table) lies in buffers, whatever follows from it is computed on the
device, and no value ever comes back to the host. Layers run by their own code; only their reach is another.

Shapes: B rows, L columns of the cache in reach, d head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gemma_model.device import moved
from gemma_model.layers.attention import KV, Reach, positions_in, rotation, visible
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.config import LayerType, TextConfig
from gemma_model.models.gemma3n.decoder import Decoder
from gemma_model.models.gemma3n.decoder_layer import Layer, Through

PIECE = 128
"""Columns whose values are summed up together: one row alone would otherwise leave most of a GPU idle."""


@dataclass(frozen=True)
class FixedReach(Reach):
    """The reach of one new token a row, from slots and positions that only the device knows."""

    @staticmethod
    def at(
        config: TextConfig, kind: LayerType, cache: KVCache, slots: Tensor, positions: Tensor, columns: int
    ) -> "FixedReach":
        """The reach in layers of one type, of which full ones read the first ``columns`` and rings are whole.

        Args:
            config: of the decoder.
            kind: of the layers.
            cache: all slots.
            slots: of each row's new token, ``[B]`` int64.
            positions: the same.
            columns: more than any of the positions.
        """
        sliding, stored = kind == "sliding_attention", cache.columns(kind)
        seen, queries = stored if sliding else min(columns, stored), positions.unsqueeze(1)
        window = config.sliding_window if sliding else cache.length
        cos, sin = rotation(positions, config.rope_theta[kind], config.head_dim)
        return FixedReach(
            tokens=1,
            groups=config.query_groups,
            visible=visible(queries, positions_in(seen, queries, stored), window, like=cos),
            cos=cos,
            sin=sin,
            columns=seen,
            joined=False,
            slots=slots.unsqueeze(1),
            kept=queries % stored,
        )

    def store(self, layer: Tensor, fresh: Tensor) -> KV:
        """See ``Reach.store``; keys and values are copied apart, so that each lies together."""
        slots, half = self.slots[:, 0], layer.shape[1] // 2
        layer[slots, :, self.kept[:, 0]] = fresh
        return layer[slots, :half, : self.columns], layer[slots, half:, : self.columns]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``[B, heads, d]`` → ``[B, heads x d]``: products, and a softmax in fp32, of all rows at once.

        The kernels behind PyTorch's attention run a row's key head in one place from its first column to its
        last, which takes long where there are few rows.
        """
        rows, heads, columns, width = keys.shape
        grouped = query.reshape(rows * heads, self.groups, width)
        scores = _product(grouped, keys.flatten(0, 1).transpose(1, 2)).view(rows, -1, columns)
        weights = torch.softmax(scores + self.visible, dim=-1).to(query.dtype)
        pieces = columns // PIECE if columns % PIECE == 0 else 1
        weights = weights.view(rows * heads, self.groups, pieces, -1).transpose(1, 2).flatten(0, 1)
        seen = _product(weights, values.reshape(rows * heads * pieces, -1, width))
        return seen.view(rows * heads, pieces, -1).sum(dim=1).to(query.dtype).view(rows, -1)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """``x @ y`` in fp32, of batches of matrices."""
    if x.is_cuda and x.dtype != torch.float32:
        return torch.bmm(x, y, out_dtype=torch.float32)
    return torch.bmm(x, y).float()


class StaticStep:
    """One step of a decoder.

    Rows that are missing are copies of the first: they compute and write what that computes and writes.

    Args:
        decoder: with its weights.
        cache: all slots.
        rows: so many, always.
        columns: of full layers that are read; every position must be below.
        through: what layers are run through.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        rows: int,
        columns: int,
        through: Through = Layer.__call__,
    ) -> None:
        self._decoder, self._cache, self._columns, self._through = decoder, cache, columns, through
        table, width = decoder.embed.table, decoder.per_layer_table.table.shape[1]
        self._given = torch.zeros(3, rows, dtype=torch.long, device=table.device)  # ids, slots, positions
        self._table_rows = torch.zeros(rows, width, dtype=table.dtype, device=table.device)

    def fill(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> None:
        """Tell what ``run`` will be about: at most ``rows`` new tokens, the slots they are in, and where."""
        missing = self._given.shape[1] - len(ids)
        given = [[*values, *[values[0]] * missing] for values in (ids, slots, positions)]
        self._given.copy_(moved(torch.tensor(given), self._given.device))
        self._table_rows.copy_(self._decoder.per_layer_table.rows(given[0], self._table_rows))

    def run(self) -> Tensor:
        """Logits, ``[rows, vocab]`` fp32; the keys and values go into the cache."""
        ids, slots, positions = self._given
        config, cache = self._decoder.config, self._cache
        reaches: dict[LayerType, Reach] = {
            kind: FixedReach.at(config, kind, cache, slots, positions, self._columns)
            for kind in set(config.layer_types)
        }
        x = self._decoder.embed(ids)
        logits = self._decoder.run(x, self._table_rows, reaches, cache, 1, self._through)
        assert logits is not None, "they were asked for"
        return logits
