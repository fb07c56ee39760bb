"""The feed-forward part: gated GELU, in some layers with all but a few per cent of the gates shut."""

from statistics import NormalDist

import torch
from torch import Tensor

from gemma_model.nn.config import TextConfig
from gemma_model.nn.ops import Linear, gelu
from gemma_model.nn.weights import Weights


class MLP:
    """``down(gelu(gate(x)) * up(x))``; a sparse layer keeps the gates above a cut-off.

    The cut-off assumes that the gates of a token are normally distributed (Spark Transformer,
    https://arxiv.org/abs/2506.06644): mean plus so many standard deviations.

    Args:
        weights: of the checkpoint.
        layer: its number.
    """

    def __init__(self, config: TextConfig, weights: Weights, layer: int) -> None:
        prefix = f"layers.{layer}.mlp."
        gate, up = (weights.take(f"{prefix}{name}_proj.weight") for name in ("gate", "up"))
        self._gate_up = Linear(torch.cat((gate, up)))
        self._down = Linear(weights.take(prefix + "down_proj.weight"))
        sparsity = config.activation_sparsity_pattern[layer]
        self._deviations = NormalDist().inv_cdf(sparsity) if sparsity > 0 else None

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, H]`` → ``[M, H]``."""
        gate, up = self._gate_up(x).chunk(2, dim=-1)
        if self._deviations is not None:
            gate = self._shut_most(gate, self._deviations)
        return self._down(gelu(gate) * up)

    @staticmethod
    def _shut_most(gate: Tensor, deviations: float) -> Tensor:
        deviation, mean = torch.std_mean(gate, dim=-1, keepdim=True, correction=0)
        return torch.relu(gate - (mean + deviation * deviations))
