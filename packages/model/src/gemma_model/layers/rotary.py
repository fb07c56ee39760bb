"""Rotary position embeddings (RoPE, https://arxiv.org/abs/2104.09864), in the layout of transformers."""

import torch
from torch import Tensor

from gemma_model.layers.specs import AttentionSpec


def rotary_cos_sin(positions: Tensor, spec: AttentionSpec) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles, ``[M, 1, head_dim]`` fp32; the first half of the sines is negated.

    Args:
        positions: M token positions, of any shape.
        spec: of the layers.
    """
    halves = torch.arange(0, spec.head_dim, 2, dtype=torch.float, device=positions.device) / spec.head_dim
    frequencies = 1.0 / spec.rope.theta**halves / spec.rope.factor
    angles = positions.reshape(-1, 1, 1).float() * frequencies  # [M, 1, head_dim / 2]
    return angles.cos().repeat(1, 1, 2), torch.cat((-angles.sin(), angles.sin()), dim=-1)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads ``[M, heads, head_dim]`` by the result of ``rotary_cos_sin``."""
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin
