"""Quantised matrices for tests."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gemma_model.weights import Weights
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.safetensors_files import open_safetensors
from gemma_model.weights.stored_tensor import StoredTensor

Bits = Literal[4, 8]


def random_matrix(
    out: int,
    width: int,
    bits: Bits,
    group_size: int = 32,
    *,
    offsets: bool = False,
    scale_dtype: torch.dtype = torch.float16,
    seed: int = 0,
) -> QuantizedTensor:
    """A matrix with every value of an integer."""
    generator = torch.Generator().manual_seed(seed)
    if bits == 8:
        quants = torch.randint(-128, 128, (out, width), generator=generator, dtype=torch.int8)
    else:
        quants = torch.randint(0, 256, (out, width // 2), generator=generator, dtype=torch.uint8)
    groups = out, width // group_size
    scales = (torch.rand(groups, generator=generator) * 0.01 + 0.001).to(scale_dtype)
    added = torch.randn(groups, generator=generator) * 0.05 if offsets else None
    return QuantizedTensor(quants, scales, added, bits)


def round_to_groups(tensor: Tensor, bits: Bits) -> QuantizedTensor:
    """A matrix rounded to symmetric integers in groups of 32, with fp16 scales."""
    most = 2 ** (bits - 1) - 1
    groups = tensor.float().view(tensor.shape[0], -1, 32)
    scales = (groups.abs().amax(-1) / most).half()
    integers = (groups / scales.float().clamp(min=1e-8).unsqueeze(-1)).round().clamp(-most, most).flatten(1)
    if bits == 8:
        return QuantizedTensor(integers.to(torch.int8), scales, None, 8)
    nibbles = (integers + 8).to(torch.uint8)
    return QuantizedTensor(nibbles[:, ::2] | nibbles[:, 1::2] << 4, scales, None, 4)


def quantized_weights(
    folder: Path,
    bits: Bits,
    dtype: torch.dtype,
    *,
    cpu_kernels: bool,
    dequantized: bool = False,
    device: str = "cpu",
) -> Weights:
    """The weights of a checkpoint. Matrices of the decoder whose width has complete groups are quantised.

    Args:
        folder: of the checkpoint.
        bits: of an integer.
        dtype: of the computation.
        cpu_kernels: see ``Weights``.
        device: of the weights.
        dequantized: matrices are dense, with the values that the quantised ones have.
    """
    stored = {
        name: _quantized(tensor, bits, dequantized) if _is_matrix_of_the_decoder(name, tensor) else tensor
        for name, tensor in open_safetensors(folder).items()
    }
    return Weights(stored, device, dtype, cpu_kernels)


def _is_matrix_of_the_decoder(name: str, tensor: StoredTensor) -> bool:
    loaded = tensor.load()
    assert isinstance(loaded, Tensor)
    kept = ("altup", "tower", "embed_vision", "embed_audio")
    return loaded.dim() == 2 and loaded.shape[1] % 32 == 0 and not any(part in name for part in kept)


def _quantized(tensor: StoredTensor, bits: Bits, dequantized: bool) -> StoredTensor:
    decode: Callable[..., Tensor | QuantizedTensor] = partial(_round, bits=bits, dequantized=dequantized)
    return StoredTensor(tensor.parts, decode)


def _round(tensor: Tensor, *, bits: Bits, dequantized: bool) -> Tensor | QuantizedTensor:
    quantized = round_to_groups(tensor, bits)
    return quantized.dequantize() if dequantized else quantized
