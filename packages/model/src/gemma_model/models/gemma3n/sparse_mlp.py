"""The MLP with activation sparsity: in some layers all but a few per cent of the gates are set to zero."""

import math
from statistics import NormalDist
from typing import Self

import torch
from torch import Tensor

from gemma_model.cpu.kernels import NO_SPARSITY
from gemma_model.layers.mlp import GatedMLP, gelu
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.weights import Weights
from gemma_model.weights.weight import RowWeight, Weight


class SparseMLP(GatedMLP):
    """A gated MLP that keeps the gates above a cut-off.

    The cut-off is mean + zscore × standard deviation of a token's gates; it assumes that these are normally
    distributed (Spark Transformer, https://arxiv.org/abs/2506.06644).

    Args:
        gate_up: see ``GatedMLP``.
        down_proj: see ``GatedMLP``.
        sparsity: the share of gates that are set to zero; 0 for a dense layer.
    """

    def __init__(
        self, gate_up: tuple[RowWeight] | tuple[RowWeight, RowWeight], down_proj: Weight, sparsity: float
    ) -> None:
        super().__init__(gate_up, down_proj)
        self._sparsity = sparsity
        self.sparsity_zscore = NormalDist().inv_cdf(sparsity) if sparsity > 0 else NO_SPARSITY

    @classmethod
    def load(cls, config: Gemma3nDecoderConfig, weights: Weights, layer: int) -> Self:
        """The MLP of a layer, by its number in the checkpoint."""
        gate, up, down = (
            f"layers.{layer}.mlp.{name}.weight" for name in ("gate_proj", "up_proj", "down_proj")
        )
        sparsity = config.activation_sparsity_pattern[layer]
        take = weights.take_columns if sparsity > 0 and weights.cpu_kernels else weights.take_matrix
        return cls((weights.take_matrix(gate, up),), take(down), sparsity)

    def narrowed(self, size: int) -> "SparseMLP":
        """The MLP with the first ``size`` neurons, as views of the same tensors."""
        down_proj = self.down_proj.weight
        if size == down_proj.shape[1]:
            return self
        return SparseMLP(self.first_neurons(size), down_proj.first_columns(size), self._sparsity)

    def activation(self, gate: Tensor) -> Tensor:
        """GELU of the gates above the cut-off, from which the cut-off is subtracted; others are zero."""
        if not math.isnan(self.sparsity_zscore):
            std, mean = torch.std_mean(gate, dim=-1, keepdim=True, correction=0)
            gate = torch.relu(gate - (mean + std * self.sparsity_zscore))
        return gelu(gate)
