"""How much quantising changed the matrices, by kind."""

from dataclasses import dataclass, field
from math import sqrt

from torch import Tensor, float64

from gemma_model.weights.quantized_tensor import QuantizedTensor


@dataclass
class _Sums:
    bits: int
    elements: int = 0
    squares: float = 0.0
    errors: float = 0.0


@dataclass
class ErrorReport:
    """Sums of squares for each kind of matrix; the error of a kind is that of all its matrices together."""

    _kinds: dict[str, _Sums] = field(default_factory=dict)

    def add(self, kind: str, bits: int, original: Tensor, quantized: QuantizedTensor) -> None:
        """Count some rows of a matrix of a kind such as ``q_proj``."""
        sums = self._kinds.setdefault(kind, _Sums(bits))
        difference = quantized.dequantize() - original.float()
        sums.elements += original.numel()
        sums.squares += float(original.float().square().sum(dtype=float64))
        sums.errors += float(difference.square().sum(dtype=float64))

    @property
    def relative_rms(self) -> dict[str, float]:
        """Kind → RMS of the error / RMS of the weights."""
        return {
            kind: sqrt(sums.errors / sums.squares) if sums.squares else 0.0
            for kind, sums in self._kinds.items()
        }

    def table(self) -> str:
        """For people."""
        errors = self.relative_rms
        lines = [f"{'matrix':28} {'format':>6} {'weights':>15}  RMS of the error / RMS of the weights"]
        lines += [
            f"{kind:28} {f'int{sums.bits}':>6} {sums.elements:15,}  {errors[kind]:.3%}"
            for kind, sums in self._kinds.items()
        ]
        return "\n".join(lines)
