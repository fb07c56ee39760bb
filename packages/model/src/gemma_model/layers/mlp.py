"""The feed-forward part: gated GELU, in some layers with all but a few per cent of the gates shut."""

import math
from statistics import NormalDist
from typing import Self

import torch
from torch import Tensor

from gemma_model.cpu.kernels import NEVER
from gemma_model.layers.linear import Linear, gelu
from gemma_model.models.gemma3n.config import TextConfig
from gemma_model.weights import Weights


class MLP:
    """``down(gelu(gate(x)) * up(x))``; a sparse layer keeps the gates above a cut-off.

    The cut-off assumes that the gates of a token are normally distributed (Spark Transformer,
    https://arxiv.org/abs/2506.06644): mean plus so many standard deviations.

    Args:
        gate_up: both projections, ``[2, size, H]``.
        down: ``[H, size]``.
        sparsity: the share of gates that are shut.
    """

    def __init__(self, gate_up: Tensor, down: Tensor, sparsity: float) -> None:
        self._weights, self._sparsity = (gate_up, down), sparsity
        # One product for both where they lie side by side; of a wider model's they do not.
        halves = [gate_up.flatten(0, 1)] if gate_up.is_contiguous() else list(gate_up)
        self.gate_up, self.down = [Linear(half) for half in halves], Linear(down)
        self.gate, self.up = gate_up  # for those who read but a few of their rows
        self.deviations = NormalDist().inv_cdf(sparsity) if sparsity > 0 else NEVER

    @classmethod
    def take(cls, config: TextConfig, weights: Weights, layer: int) -> Self:
        """The one of a layer of a checkpoint, by its number."""
        gate, up, down = (
            weights.take(f"layers.{layer}.mlp.{name}_proj.weight") for name in ("gate", "up", "down")
        )
        sparsity = config.activation_sparsity_pattern[layer]
        if sparsity > 0 and weights.compiled:
            down = down.t().contiguous().t()  # so that a neuron's part is in one place
        return cls(torch.stack((gate, up)), down, sparsity)

    def sliced(self, size: int) -> "MLP":
        """The first neurons alone, on views of the same tensors."""
        gate_up, down = self._weights
        if size == gate_up.shape[1]:
            return self
        return MLP(gate_up[:, :size], down[:, :size], self._sparsity)

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, H]`` → ``[M, H]``."""
        first, *second = (half(x) for half in self.gate_up)
        both = torch.cat((first, *second), dim=-1) if second else first
        gate, up = both.chunk(2, dim=-1)
        if not math.isnan(self.deviations):
            gate = self._shut_most(gate, self.deviations)
        return self.down(gelu(gate) * up)

    @staticmethod
    def _shut_most(gate: Tensor, deviations: float) -> Tensor:
        deviation, mean = torch.std_mean(gate, dim=-1, keepdim=True, correction=0)
        return torch.relu(gate - (mean + deviation * deviations))
