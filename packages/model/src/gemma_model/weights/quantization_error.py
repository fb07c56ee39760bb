"""How much quantising changed the matrices, by kind."""

from dataclasses import dataclass, field
from math import sqrt

from torch import Tensor, float64

from gemma_model.weights.quantized_tensor import QuantizedTensor


@dataclass
class Errors:
    """Of some rows of a matrix.

    Args:
        elements: how many there are.
        squares: the sum of their squares.
        errors: the sum of the squares of their errors.
    """

    elements: int = 0
    squares: float = 0.0
    errors: float = 0.0

    @staticmethod
    def of(original: Tensor, quantized: QuantizedTensor) -> "Errors":
        """Compare some rows."""
        weights = original.float()
        difference = quantized.dequantize().sub_(weights)
        squares, errors = (float(each.square().sum(dtype=float64)) for each in (weights, difference))
        return Errors(original.numel(), squares, errors)


@dataclass
class ErrorReport:
    """Sums of squares for each kind of matrix; the error of a kind is that of all its matrices together."""

    _kinds: dict[str, Errors] = field(default_factory=dict)
    _bits: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, bits: int, errors: Errors) -> None:
        """Count some rows of a matrix of a kind such as ``q_proj``."""
        sums = self._kinds.setdefault(kind, Errors())
        self._bits[kind] = bits
        sums.elements += errors.elements
        sums.squares += errors.squares
        sums.errors += errors.errors

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
            f"{kind:28} {f'int{self._bits[kind]}':>6} {sums.elements:15,}  {errors[kind]:.3%}"
            for kind, sums in self._kinds.items()
        ]
        return "\n".join(lines)
