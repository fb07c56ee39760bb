"""The gated MLP: ``down_proj(gelu(gate_proj(x)) * up_proj(x))``."""

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from gemma_model.cpu.kernels import LANES, NO_SPARSITY, ops
from gemma_model.layers.linear import Linear
from gemma_model.weights.weight import RowWeight, Weight


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return F.gelu(x, approximate="tanh")


class GatedMLP:
    """A gated MLP with GELU.

    Args:
        gate_up: ``gate_proj`` and ``up_proj``, ``[I, H]`` each: H hidden size, I intermediate size. Or one
            matrix with the rows of both, ``[2 I, H]``, which needs only one product.
        down_proj: ``[H, I]``.
        cpu_kernels: multiply with the C++ kernels, which must be loaded.
    """

    def __init__(
        self,
        gate_up: tuple[RowWeight] | tuple[RowWeight, RowWeight],
        down_proj: Weight,
        cpu_kernels: bool = False,
    ) -> None:
        size = down_proj.shape[1]
        self._fused_gelu = cpu_kernels and size % LANES == 0 and len(gate_up) == 1
        self._weights, self._first_up_row = gate_up, size if len(gate_up) == 1 else 0
        self._gate_up = [Linear(weight, cpu_kernels) for weight in gate_up]
        self.down_proj = Linear(down_proj, cpu_kernels)

    def first_neurons(self, count: int) -> tuple[RowWeight, RowWeight]:
        """The first ``count`` rows of ``gate_proj`` and of ``up_proj``."""
        first = self._first_up_row
        return self._weights[0].row_range(0, count), self._weights[-1].row_range(first, first + count)

    def activation(self, gate: Tensor) -> Tensor:
        """``[M, I]`` → the same shape."""
        return gelu(gate)

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, H]`` → ``[M, H]``."""
        first, *second = (linear(x) for linear in self._gate_up)
        if self._fused_gelu:
            return self.down_proj(ops.gated_gelu(first, NO_SPARSITY))
        gate, up = (torch.cat((first, *second), dim=-1) if second else first).chunk(2, dim=-1)
        return self.down_proj(self.activation(gate) * up)
