"""RMS norms."""

import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from gemma_model.cpu.kernels import LANES, ops


class RMSNorm:
    """Root-mean-square norm over the last dimension, computed in fp32.

    Args:
        width: of the last dimension.
        eps: added to the mean square.
        weight: ``[width]``, the factor as it is; it may be fp32 although ``x`` is not. ``None``: no factor.
        cpu_kernels: compute it with the C++ kernels, which must be loaded.
    """

    def __init__(
        self, width: int, eps: float, weight: Tensor | None = None, cpu_kernels: bool = False
    ) -> None:
        self._shape, self.eps, self._weight = (width,), eps, weight
        self._cpu_kernels = cpu_kernels and weight is not None and width % LANES == 0

    @property
    def weight(self) -> Tensor:
        """``[width]``, of a norm with a factor."""
        assert self._weight is not None, "this norm has no factor"
        return self._weight

    def __call__(self, x: Tensor) -> Tensor:
        """``[…, width]`` → the same shape."""
        if self._cpu_kernels and self.weight.dtype == x.dtype:
            normed: Tensor = ops.rms_norm(x, self._weight, self.eps)
            return normed
        if self._weight is not None and self._weight.dtype != x.dtype:
            return F.rms_norm(x.to(self._weight.dtype), self._shape, self._weight, self.eps).to(x.dtype)
        return F.rms_norm(x, self._shape, self._weight, self.eps)
