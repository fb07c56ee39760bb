"""The two building blocks that everything else is made of."""

import torch.nn.functional as F  # noqa: N812 - as all the world calls it
from torch import Tensor


class Linear:
    """``x @ weight.T``.

    Args:
        weight: ``[out, in]``.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, in]`` → ``[M, out]``."""
        return F.linear(x, self.weight)


class Norm:
    """Root-mean-square norm over the last dimension, computed in fp32.

    Args:
        width: of the last dimension.
        eps: added to the mean square.
        weight: ``[width]``, the plain factor (Gemma 3n adds no one to it); ``None``: no factor.
    """

    def __init__(self, width: int, eps: float, weight: Tensor | None = None) -> None:
        self._shape, self._eps, self._weight = (width,), eps, weight

    def __call__(self, x: Tensor) -> Tensor:
        """``[…, width]`` → the same."""
        return F.rms_norm(x, self._shape, self._weight, self._eps)


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return F.gelu(x, approximate="tanh")
