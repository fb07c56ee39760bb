"""Attention with query and key norms, rotary positions and grouped queries; a layer may share another's KV.

Shapes: M tokens, H hidden, d head_dim.
"""

import torch
from torch import Tensor

from gemma_model.layers.attention_metadata import KV, AnyMetadata
from gemma_model.layers.linear import Linear
from gemma_model.layers.rms_norm import RMSNorm
from gemma_model.layers.specs import AttentionSpec
from gemma_model.weights import Weights


class Attention:
    """The attention of one layer. A KV-shared layer has queries alone, and reads what another layer stored.

    Args:
        spec: of layers of this type.
        eps: of the norms.
        weights: of the checkpoint.
        prefix: of the names of its weights, such as ``layers.0.self_attn.``.
        shared_with: the layer whose keys and values it reads; ``None``: it stores its own.
    """

    def __init__(
        self, spec: AttentionSpec, eps: float, weights: Weights, prefix: str, shared_with: int | None
    ) -> None:
        self.num_heads, self._head_dim, self._norm_values = spec.num_heads, spec.head_dim, spec.norm_values
        self._norm = RMSNorm(spec.head_dim, eps)  # the factors are those of qk_norm

        def factors(name: str, heads: int) -> Tensor:
            return (weights.take(f"{prefix}{name}.weight").float() + spec.norm_offset).expand(heads, -1)

        norms, names = [factors("q_norm", self.num_heads) * spec.query_scale], ["q_proj"]
        self._rotated = self.num_heads
        if shared_with is None:
            norms.append(factors("k_norm", spec.num_kv_heads))
            names += ["k_proj", "v_proj"]
            self._rotated += spec.num_kv_heads
            if spec.norm_values:
                norms.append(torch.ones_like(norms[-1]))
        else:
            unused = (f"{prefix}{name}.weight" for name in ("k_proj", "v_proj", "k_norm", "v_norm"))
            weights.skip(unused, f"the layer reads the keys and values of layer {shared_with}")
        self.qk_norm = torch.cat(norms)  # [normed heads, d]
        qkv_proj = weights.take_matrix(*(f"{prefix}{name}.weight" for name in names))
        self.qkv_proj = Linear(qkv_proj, weights.cpu_kernels)
        self.o_proj = Linear(weights.take_matrix(prefix + "o_proj.weight"), weights.cpu_kernels)

    def project(
        self, x: Tensor, metadata: AnyMetadata, kv_cache: Tensor | None, shared_kv: KV | None
    ) -> tuple[Tensor, KV]:
        """``[M, H]`` → queries ``[M, heads, d]``, and the keys and values that they see.

        Args:
            x: the input.
            metadata: of layers of this type.
            kv_cache: the cache of the layer, if it stores keys and values.
            shared_kv: otherwise what the layer that it shares with returned.
        """
        heads = self.qkv_proj(x).view(x.shape[0], -1, self._head_dim)
        normed = self._norm(heads[:, : len(self.qk_norm)].float()) * self.qk_norm
        rotated = metadata.rotate(normed[:, : self._rotated]).to(x.dtype)
        if kv_cache is not None:
            values = (
                normed[:, self._rotated :].to(x.dtype) if self._norm_values else heads[:, self._rotated :]
            )
            new = torch.cat((rotated[:, self.num_heads :], values), dim=1)
            shared_kv = metadata.update_cache(kv_cache, new)
        assert shared_kv is not None, "a KV-shared layer needs the keys and values of another layer"
        return rotated[:, : self.num_heads], shared_kv

    def attend(self, query: Tensor, metadata: AnyMetadata, kv: KV) -> Tensor:
        """Queries ``[M, heads, d]`` → ``[M, H]``."""
        return self.o_proj(metadata.attend(query, *kv))
