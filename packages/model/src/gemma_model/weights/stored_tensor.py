"""A tensor in a file of a checkpoint: memory-mapped parts, and how a tensor is made from them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gemma_model.weights.quantized_tensor import QuantizedTensor


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file. A format of files makes one for each of its tensors.

    Args:
        parts: memory-maps the tensors that represent it in the file, such as integers and scales.
        decode: those tensors → the tensor. Of a matrix it also decodes some rows, given the same rows of each
            part.
    """

    parts: Callable[[], tuple[Tensor, ...]]
    decode: Callable[..., Tensor | QuantizedTensor]

    @staticmethod
    def dense(load: Callable[[], Tensor]) -> "StoredTensor":
        """A tensor that is in the file as it is.

        Args:
            load: memory-maps it.
        """
        return StoredTensor(lambda: (load(),), lambda tensor: tensor)

    def load(self) -> Tensor | QuantizedTensor:
        """The tensor; still memory-mapped if it is stored as it is."""
        return self.decode(*self.parts())
