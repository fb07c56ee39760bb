import numpy as np
import pytest
import torch

from gemma_model.weights.gguf_blocks import SLICE_BYTES, decode_rows
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_wire.gguf_types import BLOCK_TYPES, BlockType

gguf = pytest.importorskip(
    "gguf", reason="the package gguf, the reference of the block types, is not installed"
)

KINDS = {kind.name: kind for kind in BLOCK_TYPES.values()}
FORMATS = {  # bits, group, type of the scales, offsets
    "Q4_0": (4, 32, torch.float16, False),
    "Q4_1": (4, 32, torch.float16, True),
    "Q5_0": (8, 32, torch.float16, False),
    "Q5_1": (8, 32, torch.float16, True),
    "Q8_0": (8, 32, torch.float16, False),
    "Q4_K": (4, 32, torch.float32, True),
    "Q5_K": (8, 32, torch.float32, True),
    "Q6_K": (8, 16, torch.float32, False),
    "IQ4_NL": (8, 32, torch.float16, False),
}
HALVES = {  # where fp16 numbers are in a block
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
}


def random_rows(kind: BlockType, rows: int, blocks: int, seed: int = 0) -> torch.Tensor:
    """Random bytes, with finite fp16 numbers where the type has some."""
    random = np.random.default_rng(seed)
    data = random.integers(0, 256, (rows, blocks, kind.nbytes), dtype=np.uint8)
    for at in HALVES.get(kind.name, ()):
        values = random.standard_normal((rows, blocks, 1)) * 10.0 ** random.integers(-7, 3, (rows, blocks, 1))
        data[..., at : at + 2] = values.astype(np.float16).view(np.uint8)
    if kind.name in ("F32", "F16", "BF16"):
        values = random.standard_normal((rows, blocks)).astype(np.float16 if kind.nbytes == 2 else np.float32)
        data = values.view(np.uint8)
    return torch.from_numpy(data.reshape(rows, -1))


def reference(kind: BlockType, rows: torch.Tensor) -> torch.Tensor:
    values = gguf.quants.dequantize(rows.numpy(), gguf.GGMLQuantizationType[kind.name])
    return torch.from_numpy(np.array(values, dtype=np.float32))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("rows", "blocks"), [(1, 1), (7, 3), (50, 4)])
def test_the_values_are_exactly_those_of_the_gguf_package(kind: BlockType, rows: int, blocks: int) -> None:
    data = random_rows(kind, rows, blocks, seed=rows)
    decoded = decode_rows(kind, data)
    values = decoded.dequantize() if isinstance(decoded, QuantizedTensor) else decoded.float()
    assert values.shape == (rows, blocks * kind.elements)
    assert torch.equal(values, reference(kind, data))


@pytest.mark.parametrize("name", FORMATS)
def test_the_form_is_the_one_that_the_kernels_read(name: str) -> None:
    bits, group, scales, offsets = FORMATS[name]
    decoded = decode_rows(KINDS[name], random_rows(KINDS[name], 2, 2))
    assert isinstance(decoded, QuantizedTensor)
    assert (decoded.bits, decoded.group_size, decoded.scales.dtype) == (bits, group, scales)
    assert (decoded.offsets is not None) == offsets
    assert all(part.is_contiguous() for part in (decoded.quants, decoded.scales))


@pytest.mark.parametrize("name", FORMATS)
def test_a_matrix_of_several_slices(name: str) -> None:
    kind = KINDS[name]
    data = random_rows(kind, 5, SLICE_BYTES // kind.nbytes // 2 - 1)  # two rows in a slice
    decoded = decode_rows(kind, data)
    assert isinstance(decoded, QuantizedTensor)
    assert torch.equal(decoded.dequantize(), reference(kind, data))
