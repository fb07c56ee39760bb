import pytest
import torch

from gemma_model.weights.quantized_tensor import QuantizedTensor, concatenate
from gemma_model.weights.weight import QuantizedWeight
from gemma_wire import InvalidRequest

from .quantized import random_matrix

KINDS = [
    random_matrix(64, 128, 4),
    random_matrix(64, 128, 4, 64, offsets=True),
    random_matrix(64, 128, 8, 128),
    random_matrix(64, 128, 8, 16, offsets=True),
]


def test_the_low_nibble_of_a_byte_is_the_first_element() -> None:
    quants = torch.tensor([[0xF0, 0x98]], dtype=torch.uint8)
    symmetric = QuantizedTensor(quants, torch.tensor([[0.5]]), None, 4)
    assert symmetric.dequantize().tolist() == [[-4.0, 3.5, 0.0, 0.5]]
    shifted = QuantizedTensor(quants, torch.tensor([[0.5]]), torch.tensor([[1.0]]), 4)
    assert shifted.dequantize().tolist() == [[1.0, 8.5, 5.0, 5.5]]


def test_bytes_are_signed() -> None:
    quants = torch.tensor([[-128, 127]], dtype=torch.int8)
    assert QuantizedTensor(quants, torch.tensor([[2.0]]), None, 8).dequantize().tolist() == [[-256.0, 254.0]]


@pytest.mark.parametrize("matrix", KINDS)
def test_parts_are_those_of_the_dequantised_matrix(matrix: QuantizedTensor) -> None:
    whole = matrix.dequantize()
    assert matrix.shape == tuple(whole.shape)
    ids = torch.tensor([63, 0, 5])
    assert torch.equal(matrix.rows(ids).dequantize(), whole[ids])
    assert torch.equal(matrix.rows(slice(3, 9)).dequantize(), whole[3:9])
    assert torch.equal(matrix.first_columns(matrix.group_size).dequantize(), whole[:, : matrix.group_size])


def test_a_group_cannot_be_cut() -> None:
    with pytest.raises(InvalidRequest, match="48 neurons are not a multiple of 32"):
        random_matrix(8, 64, 4).first_columns(48)


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_matrices_one_below_the_other_keep_their_values(
    first: QuantizedTensor, second: QuantizedTensor
) -> None:
    both = concatenate([first, second])
    assert torch.equal(both.dequantize(), torch.cat((first.dequantize(), second.dequantize())))


@pytest.mark.parametrize("matrix", KINDS)
def test_without_kernels_a_product_is_that_of_the_dequantised_matrix(
    matrix: QuantizedTensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemma_model.weights.weight.TILE_ELEMENTS", 1000)  # several tiles
    weight, x = QuantizedWeight(matrix, torch.float32), torch.randn(3, 128)
    torch.testing.assert_close(weight.matmul(x), x @ matrix.dequantize().T)
    torch.testing.assert_close(weight.row_range(8, 24).matmul(x), x @ matrix.dequantize()[8:24].T)
