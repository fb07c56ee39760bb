"""What each layer gets besides the residual streams: rows of a large table, and projected embeddings.

Shapes: M tokens, H hidden, P per-layer input.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gemma_model.device import moved
from gemma_model.layers.linear import Linear, Norm
from gemma_model.models.gemma3n.config import TextConfig
from gemma_model.weights import Weights

ROWS_AT_ONCE = 1024
"""Of the table, copied before anybody is asked whether to go on."""


class PerLayerTable:
    """A second embedding, one row per token for all layers; so large that it may stay in the file.

    Args:
        weights: of the checkpoint.
        on_device: load it onto the device instead of gathering rows from the memory-mapped file.
    """

    def __init__(self, config: TextConfig, weights: Weights, on_device: bool = False) -> None:
        name = "embed_tokens_per_layer.weight"
        self._known = config.vocab_size_per_layer_input
        self.table = weights.take(name) if on_device else weights.take_mapped(name)

    def rows(self, ids: Sequence[int], like: Tensor) -> Tensor:
        """Rows of some tokens, ``[M, layers x P]``, as ``like`` is; ids that the table lacks read row 0."""
        table, known = self.table, [i if 0 <= i < self._known else 0 for i in ids]
        gathered = F.embedding(torch.tensor(known, device=table.device), table)
        return moved(gathered.to(like.dtype), like.device)

    def copy_into_memory(self, given_up: Callable[[], bool]) -> bool:
        """Make a copy in memory, so that no row has to wait for the disk; whether that was finished.

        Until the copy is whole, rows are read from the file.

        Args:
            given_up: asked between pieces; once it is true, all stays as it was.
        """
        copy = torch.empty_like(self.table)
        source, target = (table.view(torch.uint8).numpy() for table in (self.table, copy))  # has no bf16
        for start in range(0, len(source), ROWS_AT_ONCE):
            if given_up():
                return False
            target[start : start + ROWS_AT_ONCE] = source[start : start + ROWS_AT_ONCE]
        self.table = copy
        return True


class PerLayerInputs:
    """What the layers of a range get besides the residual streams.

    Args:
        weights: of the checkpoint.
        projection: ``[layers x P, H]``, of all layers.
        norm: of the projection.
        compiled: see ``Linear``.
        layers: the range.
    """

    def __init__(
        self, config: TextConfig, projection: Tensor, norm: Norm, compiled: bool, layers: range
    ) -> None:
        self._width, self._layers, self._norm = config.hidden_size_per_layer_input, layers, norm
        self._part = slice(layers.start * self._width, layers.stop * self._width)
        self._project = Linear(projection[self._part], compiled)
        self._scale = config.hidden_size**-0.5

    def __call__(self, x: Tensor, table_rows: Tensor) -> Sequence[Tensor]:
        """Embeddings ``[M, H]`` and rows ``[M, all layers x P]`` → ``[M, P]`` for each layer of the range."""
        shape = (x.shape[0], len(self._layers), self._width)
        projected = self._norm((self._project(x) * self._scale).view(shape))
        looked_up = table_rows[:, self._part].reshape(shape) * math.sqrt(self._width)
        both = (projected + looked_up) * math.sqrt(0.5)
        return [both[:, i] for i in range(len(self._layers))]
