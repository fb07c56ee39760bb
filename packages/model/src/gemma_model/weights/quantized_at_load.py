"""Quantises the tensors of a checkpoint when they are loaded, one after the other."""

from collections.abc import Callable, Mapping

from torch import Tensor

from gemma_model.weights.quantization_recipe import Bits, Recipe
from gemma_model.weights.quantize import can_quantize, quantize
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.stored_tensor import StoredTensor


def quantized_at_load(stored: Mapping[str, StoredTensor], recipe: Recipe) -> dict[str, StoredTensor]:
    """The same tensors; those that ``recipe`` names are quantised by ``load``."""
    quantized = dict(stored)
    for key, tensor in stored.items():
        bits = recipe.bits_of(key)
        if bits is not None:
            quantized[key] = StoredTensor(tensor.parts, _quantizing(tensor.decode, bits))
    return quantized


def _quantizing(
    decode: Callable[..., Tensor | QuantizedTensor], bits: Bits
) -> Callable[..., Tensor | QuantizedTensor]:
    def decode_and_quantize(*parts: Tensor) -> Tensor | QuantizedTensor:
        decoded = decode(*parts)
        if isinstance(decoded, QuantizedTensor) or not can_quantize(tuple(decoded.shape)):
            return decoded
        return quantize(decoded, bits)

    return decode_and_quantize
