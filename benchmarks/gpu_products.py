"""Products with the matrices of E4B on a GPU: bf16, and int8 and int4 by the library and by dequantising.

``python -m benchmarks.gpu`` runs it first.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from gemma_model.weights.gpu_products import GpuProducts
from gemma_model.weights.humming_weight import HummingWeight
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.weight import DenseWeight, QuantizedWeight, RowWeight

SHAPES = {
    "qkv_proj": (3072, 2048),
    "o_proj": (2048, 2048),
    "gate_up_proj": (32768, 2048),
    "down_proj": (2048, 16384),
    "per_layer_input_gate": (256, 2048),
    "per_layer_projection": (2048, 256),
    "output head": (262400, 2048),
}
ROWS = (1, 4, 16, 64, 512)
GROUP_SIZE = 32
COLUMNS = ("matrix", "rows", "bf16 µs", "int8 µs", "int8 dequantised", "int4 µs", "int4 dequantised")

Seconds = Callable[[Callable[[], object]], float]


def random_quantized(
    shape: tuple[int, int], bits: Literal[4, 8], device: torch.device, size: float = 1.0
) -> QuantizedTensor:
    """Random integers whose values have the standard deviation ``size``, with bf16 scales in groups of 32."""
    out, width = shape
    dtype = torch.uint8 if bits == 4 else torch.int8
    first, end = (0, 256) if bits == 4 else (-128, 128)
    quants = torch.randint(first, end, (out, width * bits // 8), dtype=dtype, device=device)
    scale = size * 12**0.5 / 2**bits  # of uniformly distributed integers
    scales = torch.full((out, width // GROUP_SIZE), scale, dtype=torch.bfloat16, device=device)
    return QuantizedTensor(quants, scales, None, bits)


def measure_products(device: torch.device, seconds: Seconds, shapes: dict[str, tuple[int, int]]) -> None:
    """Print a line for each matrix and number of rows.

    Args:
        device: where the products run.
        seconds: how long something takes.
        shapes: ``(out, in)`` of each matrix.
    """
    products = GpuProducts() if device.type == "cuda" else None
    print("| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|")
    for name, shape in shapes.items():
        weights = _weights(shape, device, products)
        for rows in ROWS:
            x = torch.randn(rows, shape[1], dtype=torch.bfloat16, device=device)
            cells = [_cell(weight, x, seconds) for weight in weights]
            print(f"| {name} | {rows} | {' | '.join(cells)} |", flush=True)
    print("\n-: humming-kernels is not used; the log says why\n")


def _weights(
    shape: tuple[int, int], device: torch.device, products: GpuProducts | None
) -> list[RowWeight | None]:
    weights: list[RowWeight | None] = [DenseWeight(torch.randn(shape, dtype=torch.bfloat16, device=device))]
    for bits in (8, 4):
        matrix = random_quantized(shape, bits, device)
        packed = None if products is None else products.pack(matrix, torch.bfloat16)
        weights.append(packed if isinstance(packed, HummingWeight) else None)
        weights.append(QuantizedWeight(matrix, torch.bfloat16))
    return weights


def _cell(weight: RowWeight | None, x: Tensor, seconds: Seconds) -> str:
    return "-" if weight is None else f"{seconds(partial(weight.matmul, x)) * 1e6:.1f}"
