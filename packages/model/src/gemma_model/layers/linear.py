"""Linear layers."""

import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from gemma_model.cpu.kernels import ops


class Linear:
    """``x @ weight.T``.

    Args:
        weight: ``[out, in]``.
        cpu_kernels: multiply with the C++ kernels, which must be loaded.
    """

    def __init__(self, weight: Tensor, cpu_kernels: bool = False) -> None:
        self.weight, self._matmul = weight, ops.linear if cpu_kernels else F.linear

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, in]`` → ``[M, out]``."""
        y: Tensor = self._matmul(x, self.weight)
        return y
