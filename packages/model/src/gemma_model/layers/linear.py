"""Linear layers."""

from torch import Tensor

from gemma_model.cpu.kernels import ops
from gemma_model.weights.weight import Weight


class Linear:
    """``x @ weight.T``.

    Args:
        weight: ``[out, in]``.
        cpu_kernels: multiply with the C++ kernels, which must be loaded.
    """

    def __init__(self, weight: Weight, cpu_kernels: bool = False) -> None:
        self.weight, self._cpu_kernels = weight, cpu_kernels

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, in]`` → ``[M, out]``."""
        if not self._cpu_kernels:
            return self.weight.matmul(x)
        y: Tensor = ops.linear(x, self.weight.operand)
        return y
