"""The two building blocks that everything else is made of."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812 - as all the world calls it
from torch import Tensor

from gemma_model.nn.kernels import LANES, ops


def is_finite(tensors: Iterable[Tensor], compiled: bool = False) -> bool:
    """Whether no element is infinite or NaN.

    Args:
        tensors: of any shapes, fp32 or bf16; on one device.
        compiled: look by the CPU's kernels, which must be loaded; PyTorch takes ten times as long.
    """
    if compiled:
        return all(ops.is_finite(x) for x in tensors)
    ends = [torch.stack(torch.aminmax(x)) for x in tensors if x.numel()]  # both are NaN where an element is
    return not ends or not torch.cat(ends).isfinite().logical_not().any().tolist()


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
