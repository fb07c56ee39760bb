"""Per-layer embeddings: what each layer gets besides the residual streams.

Shapes: M tokens, H hidden, P per-layer input.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gemma_model.device import to_device
from gemma_model.layers.linear import Linear
from gemma_model.layers.rms_norm import RMSNorm
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.weights import Weights
from gemma_model.weights.mapped_matrix import MappedMatrix
from gemma_model.weights.weight import RowWeight


class PerLayerTable:
    """``embed_tokens_per_layer``: one row per token for all layers; so large that it may stay in the file.

    Args:
        weights: of the checkpoint.
        on_device: load it onto the device instead of reading rows from the memory-mapped file.
    """

    def __init__(self, config: Gemma3nDecoderConfig, weights: Weights, on_device: bool = False) -> None:
        name = "embed_tokens_per_layer.weight"
        self._vocab_size = config.vocab_size_per_layer_input
        self.width = config.num_hidden_layers * config.hidden_size_per_layer_input
        self.table = weights.take_table(name) if on_device else MappedMatrix(weights.take_mapped(name))

    @property
    def nbytes(self) -> int:
        """The size of the table."""
        return self.table.nbytes

    def rows(self, ids: Sequence[int], like: Tensor) -> Tensor:
        """Rows of tokens, ``[M, layers x P]``, on the device and in the dtype of ``like``.

        Token ids that the table does not have read row 0.
        """
        known = [i if 0 <= i < self._vocab_size else 0 for i in ids]
        gathered = self.table.rows(torch.tensor(known, device=self.table.device))
        return to_device(gathered.to(like.dtype), like.device)

    def read_into_page_cache(self, stopped: Callable[[], bool]) -> bool:
        """See ``MappedMatrix.read_into_page_cache``."""
        assert isinstance(self.table, MappedMatrix), "it is on the device"
        return self.table.read_into_page_cache(stopped)


class PerLayerInputs:
    """The per-layer inputs of a range of layers: projected embeddings plus rows of the table.

    Args:
        per_layer_model_projection: ``[layers x P, H]``, of all layers.
        per_layer_projection_norm: of the projection.
        cpu_kernels: see ``Linear``.
        layers: the range.
    """

    def __init__(
        self,
        config: Gemma3nDecoderConfig,
        per_layer_model_projection: RowWeight,
        per_layer_projection_norm: RMSNorm,
        cpu_kernels: bool,
        layers: range,
    ) -> None:
        self._width, self._layers = config.hidden_size_per_layer_input, layers
        self._part = slice(layers.start * self._width, layers.stop * self._width)
        rows = per_layer_model_projection.row_range(self._part.start, self._part.stop)
        self._projection = Linear(rows, cpu_kernels)
        self._norm, self._scale = per_layer_projection_norm, config.hidden_size**-0.5

    def __call__(self, x: Tensor, table_rows: Tensor) -> Sequence[Tensor]:
        """Embeddings ``[M, H]`` and rows ``[M, all layers x P]`` → ``[M, P]`` for each layer of the range."""
        shape = (x.shape[0], len(self._layers), self._width)
        projected = self._norm((self._projection(x) * self._scale).view(shape))
        looked_up = table_rows[:, self._part].reshape(shape) * math.sqrt(self._width)
        both = (projected + looked_up) * math.sqrt(0.5)
        return [both[:, i] for i in range(len(self._layers))]
