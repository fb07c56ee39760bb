"""Linear layers, norms and the activation function."""

import torch.nn.functional as F  # noqa: N812 - as all the world calls it
from torch import Tensor

from gemma_model.cpu.kernels import LANES, ops


class Linear:
    """``x @ weight.T``.

    Args:
        weight: ``[out, in]``.
        compiled: multiply few rows by the CPU's kernels, which must be loaded.
    """

    def __init__(self, weight: Tensor, compiled: bool = False) -> None:
        self.weight, self._product = weight, ops.linear if compiled else F.linear

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, in]`` → ``[M, out]``."""
        y: Tensor = self._product(x, self.weight)
        return y


class Norm:
    """Root-mean-square norm over the last dimension, computed in fp32.

    Args:
        width: of the last dimension.
        eps: added to the mean square.
        weight: ``[width]``, the plain factor (Gemma 3n adds no one to it); ``None``: no factor.
        compiled: see ``Linear``.
    """

    def __init__(self, width: int, eps: float, weight: Tensor | None = None, compiled: bool = False) -> None:
        self._shape, self.eps, self.weight = (width,), eps, weight
        self._compiled = compiled and weight is not None and width % LANES == 0

    @property
    def factor(self) -> Tensor:
        """``[width]``, of a norm that has one."""
        assert self.weight is not None, "the norms of whole streams have a factor"
        return self.weight

    def __call__(self, x: Tensor) -> Tensor:
        """``[…, width]`` → the same."""
        if self._compiled:
            normed: Tensor = ops.rms_norm(x, self.weight, self.eps)
            return normed
        return F.rms_norm(x, self._shape, self.weight, self.eps)


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return F.gelu(x, approximate="tanh")
