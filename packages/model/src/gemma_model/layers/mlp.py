"""The gated MLP: ``down_proj(gelu(gate_proj(x)) * up_proj(x))``."""

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from gemma_model.layers.linear import Linear


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return F.gelu(x, approximate="tanh")


class GatedMLP:
    """A gated MLP with GELU.

    Args:
        gate_up_proj: both projections, ``[2, I, H]``: H hidden size, I intermediate size.
        down_proj: ``[H, I]``.
    """

    def __init__(self, gate_up_proj: Tensor, down_proj: Tensor) -> None:
        self._weights = gate_up_proj, down_proj
        self.gate_proj, self.up_proj = gate_up_proj  # views, [I, H] each
        # One product for both where they are adjacent in memory; in a part of a wider model they are not.
        adjacent = gate_up_proj.is_contiguous()
        self._gate_up = [Linear(w) for w in ([gate_up_proj.flatten(0, 1)] if adjacent else gate_up_proj)]
        self.down_proj = Linear(down_proj)

    def activation(self, gate: Tensor) -> Tensor:
        """``[M, I]`` → the same shape."""
        return gelu(gate)

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, H]`` → ``[M, H]``."""
        first, *second = (linear(x) for linear in self._gate_up)
        gate, up = (torch.cat((first, *second), dim=-1) if second else first).chunk(2, dim=-1)
        return self.down_proj(self.activation(gate) * up)
