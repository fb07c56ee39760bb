"""Attention metadata of fixed shapes for one new token per row, computed on the device, for CUDA graphs.

Shapes: B rows, L KV columns that are read, d head_dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gemma_model.layers.attention_metadata import KV, AttentionMetadata, attention_bias, column_positions
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.rotary import rotary_cos_sin
from gemma_model.layers.specs import AttentionSpec

SUM_COLUMNS = 128
"""Columns whose values are summed up together: otherwise a single row would leave most of a GPU idle."""


@dataclass(frozen=True)
class CudaGraphMetadata(AttentionMetadata):
    """The metadata of one new token per row, whose slots and positions only the device knows."""

    @staticmethod
    def build_static(
        spec: AttentionSpec, cache: KVCache, slots: Tensor, positions: Tensor, columns: int
    ) -> "CudaGraphMetadata":
        """For layers of one type. Full layers read the first ``columns`` columns, rings are read completely.

        Args:
            spec: of the layers.
            cache: all slots.
            slots: of the new tokens, ``[B]`` int64.
            positions: of the new tokens, ``[B]`` int64.
            columns: more than any of the positions.
        """
        stored, queries = cache.columns(spec.window), positions.unsqueeze(1)
        read = min(columns, stored) if spec.window is None else stored
        cos, sin = rotary_cos_sin(positions, spec)
        keys = column_positions(read, queries, stored)
        return CudaGraphMetadata(
            tokens=1,
            groups=spec.query_groups,
            bias=attention_bias(queries, keys, spec.window or cache.length, like=cos),
            cos=cos,
            sin=sin,
            read_columns=read,
            concat_new=False,
            slots=slots.unsqueeze(1),
            write_columns=queries % stored,
        )

    def update_cache(self, layer: Tensor, new: Tensor) -> KV:
        """See ``AttentionMetadata``. Keys and values are copied separately, so that each is contiguous."""
        slots, half = self.slots[:, 0], layer.shape[1] // 2
        layer[slots, :, self.write_columns[:, 0]] = new
        return layer[slots, :half, : self.read_columns], layer[slots, half:, : self.read_columns]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``[B, heads, d]`` → ``[B, heads x d]``: matrix products and a softmax in fp32, of all rows at once.

        The kernels of PyTorch's attention run a key head of a row on one multiprocessor from the first column
        to the last, which takes long if there are few rows.
        """
        rows, heads, columns, width = keys.shape
        grouped = query.reshape(rows * heads, self.groups, width)
        scores = _matmul(grouped, keys.flatten(0, 1).transpose(1, 2)).view(rows, -1, columns)
        weights = torch.softmax(scores + self.bias, dim=-1).to(query.dtype)
        parts = columns // SUM_COLUMNS if columns % SUM_COLUMNS == 0 else 1
        weights = weights.view(rows * heads, self.groups, parts, -1).transpose(1, 2).flatten(0, 1)
        seen = _matmul(weights, values.reshape(rows * heads * parts, -1, width))
        return seen.view(rows * heads, parts, -1).sum(dim=1).to(query.dtype).view(rows, -1)


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    """``x @ y`` in fp32, of batches of matrices."""
    if x.is_cuda and x.dtype != torch.float32:
        return torch.bmm(x, y, out_dtype=torch.float32)
    return torch.bmm(x, y).float()
