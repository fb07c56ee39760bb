"""The tensors of a checkpoint by name. Each is taken exactly once, or skipped with a reason.

Names are those without wrappers: see ``gemma_wire.tensor_names``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from gemma_model.cpu.kernels import is_finite
from gemma_model.weights.gpu_products import GpuProducts
from gemma_model.weights.packed_weight import PackedColumns, PackedWeight, can_pack
from gemma_model.weights.quantized_tensor import QuantizedTensor, concatenate
from gemma_model.weights.stored_tensor import StoredTensor
from gemma_model.weights.weight import DenseWeight, QuantizedWeight, RowWeight, Weight
from gemma_wire import InvalidRequest
from gemma_wire.tensor_names import bare_name

W = TypeVar("W", bound=Weight)


class Weights:
    """Named tensors, and which of them were used.

    Args:
        stored: the tensors in the files, by their names in the checkpoint.
        device: of taken tensors.
        dtype: of taken tensors; ``None``: as stored.
        cpu_kernels: whether layers with these weights use the C++ kernels, which must be loaded.
        gpu_products: packs quantised matrices for a GPU; ``None``: they are dequantised when they are used.
    """

    def __init__(
        self,
        stored: Mapping[str, StoredTensor],
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        cpu_kernels: bool = False,
        gpu_products: GpuProducts | None = None,
    ) -> None:
        self.cpu_kernels, self._gpu_products = cpu_kernels, gpu_products
        self._remaining = {bare_name(key): (key, tensor) for key, tensor in stored.items()}
        self._device, self._dtype = torch.device(device), dtype
        self.unused: dict[str, str] = {}
        self._bits: set[int] = set()
        self.taken_bytes = 0  # on the device; what stays in the file does not count
        if len(self._remaining) != len(stored):
            raise InvalidRequest("has the same tensor in two layouts", "MODEL_NAME")

    @property
    def quantization(self) -> str:
        """What taken matrices are quantised to, such as ``int4 and int8``; empty if none is."""
        return " and ".join(f"int{bits}" for bits in sorted(self._bits))

    def __contains__(self, name: str) -> bool:
        return name in self._remaining

    def take(self, name: str) -> Tensor:
        """A dense copy of the tensor of that name, on the device and in the dtype of this object.

        Raises:
            InvalidRequest: when the checkpoint does not have it, it was taken before, or it has infinity or
                NaN.
        """
        return self._on_device(name, self._pop(name).load())

    def take_matrix(self, *names: str) -> RowWeight:
        """The matrix of that name, or several of one width, one below the other; quantised if stored so.

        Raises:
            InvalidRequest: as ``take``.
        """
        matrix = self._load_matrix(names)
        if isinstance(matrix, Tensor):
            return DenseWeight(matrix)
        return self._counted(self._pack(matrix), matrix)

    def take_table(self, name: str) -> RowWeight:
        """The matrix of that name, of which rows are read only.

        Raises:
            InvalidRequest: as ``take``.
        """
        matrix = self._load_matrix((name,))
        if isinstance(matrix, Tensor):
            return DenseWeight(matrix)
        pack = PackedWeight.pack if self.cpu_kernels else QuantizedWeight
        return self._counted(pack(matrix, self._compute_dtype), matrix)

    def _pack(self, matrix: QuantizedTensor) -> RowWeight:
        if self.cpu_kernels:
            return PackedWeight.pack(matrix, self._compute_dtype)
        if self._gpu_products is not None:
            return self._gpu_products.pack(matrix, self._compute_dtype)
        return QuantizedWeight(matrix, self._compute_dtype)

    def take_columns(self, name: str) -> Weight:
        """The matrix of that name, laid out so that the C++ kernels can read single columns.

        Raises:
            InvalidRequest: as ``take``.
        """
        matrix = self._load_matrix((name,))
        if isinstance(matrix, Tensor):
            return DenseWeight(matrix.t().contiguous().t())
        pack = PackedColumns.pack if self.cpu_kernels else QuantizedWeight
        return self._counted(pack(matrix, self._compute_dtype), matrix)

    def _load_matrix(self, names: Sequence[str]) -> Tensor | QuantizedTensor:
        """Matrices, one below the other, on the device; dense unless all are quantised."""
        loaded = [self._pop(name).load() for name in names]
        quantized = [matrix for matrix in loaded if isinstance(matrix, QuantizedTensor)]
        if len(quantized) == len(names) and self._dtype is not None:
            matrix = concatenate(quantized)
            if not self.cpu_kernels or can_pack(matrix):
                matrix = matrix if self.cpu_kernels else matrix.to(self._device)
                if is_finite([part.float() for part in (matrix.scales, matrix.offsets) if part is not None]):
                    return matrix
                raise InvalidRequest(f"the scales of {names[0]!r} have infinity or NaN", "MODEL_NAME")
        dense = [self._on_device(name, matrix) for name, matrix in zip(names, loaded, strict=True)]
        return dense[0] if len(dense) == 1 else torch.cat(dense)

    @property
    def _compute_dtype(self) -> torch.dtype:
        assert self._dtype is not None, "a quantised matrix needs a dtype of the computation"
        return self._dtype

    def _counted(self, weight: W, matrix: QuantizedTensor) -> W:
        self.taken_bytes += weight.nbytes
        self._bits.add(matrix.bits)
        return weight

    def take_mapped(self, name: str) -> StoredTensor:
        """The tensor in its file, to read rows of it."""
        return self._pop(name)

    def _pop(self, name: str) -> StoredTensor:
        if name not in self._remaining:
            raise InvalidRequest(
                f"the checkpoint has no tensor {name!r}, or it was taken twice", "MODEL_NAME"
            )
        return self._remaining.pop(name)[1]

    def _on_device(self, name: str, loaded: Tensor | QuantizedTensor, copy: bool = True) -> Tensor:
        dense = loaded.dequantize() if isinstance(loaded, QuantizedTensor) else loaded
        taken = dense.to(self._device, self._dtype, copy=copy)
        if not taken.is_meta and not is_finite([taken]):
            raise InvalidRequest(f"the checkpoint's tensor {name!r} has infinity or NaN", "MODEL_NAME")
        if taken is not dense:
            self.taken_bytes += taken.nbytes
        return taken

    def take_prefix(self, prefix: str) -> dict[str, Tensor]:
        """All tensors whose names begin with ``prefix``, by the rest of their names.

        On a CPU, tensors that are stored in the dtype of this object stay in the memory-mapped file.
        """
        names = [name for name in self._remaining if name.startswith(prefix)]
        return {
            name.removeprefix(prefix): self._on_device(name, self._pop(name).load(), copy=False)
            for name in names
        }

    def skip(self, names: Iterable[str], reason: str) -> None:
        """Mark those tensors as unused that exist, with the reason."""
        for name in names:
            if name in self._remaining:
                self.unused[self._remaining.pop(name)[0]] = reason

    def skip_prefix(self, prefix: str, reason: str) -> None:
        """Mark all tensors whose names begin with ``prefix`` as unused, with the reason."""
        self.skip([name for name in self._remaining if name.startswith(prefix)], reason)

    def check_all_used(self) -> None:
        """Check that no tensor remains.

        Raises:
            InvalidRequest: naming tensors that were neither taken nor skipped; the model would not be that of
                the checkpoint.
        """
        if self._remaining:
            some = ", ".join(sorted(key for key, _ in self._remaining.values())[:5])
            raise InvalidRequest(
                f"the checkpoint has {len(self._remaining)} unknown tensors: {some}", "MODEL_NAME"
            )
