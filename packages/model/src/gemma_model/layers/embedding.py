"""Token embeddings, and the output head with the same matrix."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from gemma_model.cpu.kernels import LANES, ops
from gemma_model.layers.linear import Linear
from gemma_model.weights import Weights
from gemma_model.weights.weight import Weight


class ScaledEmbedding:
    """``embed_tokens``: token ids to the decoder's input, scaled by the square root of the hidden size.

    Args:
        hidden_size: of the decoder.
        weights: of the checkpoint.
    """

    def __init__(self, hidden_size: int, weights: Weights) -> None:
        self.weight = weights.take_matrix("embed_tokens.weight")  # [vocab, H], of the output head too
        weights.skip(["lm_head.weight"], "tied to embed_tokens")
        scale = torch.tensor(math.sqrt(hidden_size), dtype=self.weight.dtype)
        self._scale = scale.item()  # rounded to the dtype

    def __call__(self, ids: Tensor) -> Tensor:
        """``[M]`` → ``[M, H]``."""
        return self.weight.rows(ids) * self._scale


class OutputHead:
    """Hidden states to logits, with the matrix of the embeddings.

    Args:
        weight: ``[vocab, H]``.
        softcap: logits are softly limited to ± this value; ``None``: they are not.
        cpu_kernels: multiply with the C++ kernels, which must be loaded.
        missing_rows: token ids after those of the matrix. They are in prompts, and never in an output.
    """

    def __init__(
        self, weight: Weight, softcap: float | None, cpu_kernels: bool = False, missing_rows: int = 0
    ) -> None:
        self._weight, self._linear, self._cap = weight, Linear(weight), softcap
        self._missing_rows = missing_rows
        self._cpu_kernels = cpu_kernels and weight.shape[1] % LANES == 0

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, H]`` → ``[M, vocab]`` fp32; minus infinity for missing rows."""
        logits = self._logits(x)
        return F.pad(logits, (0, self._missing_rows), value=-math.inf) if self._missing_rows else logits

    def _logits(self, x: Tensor) -> Tensor:
        if self._cpu_kernels:
            capped: Tensor = ops.logits(x, self._weight.operand, self._cap or 0.0)
            return capped
        logits = self._linear(x).float()
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap
