"""AltUp: the residual stream is several streams. A layer runs on the active one and predicts the others.

Alternating Updates for Efficient Transformers, https://arxiv.org/abs/2301.13310.
Shapes: M tokens, N streams, H hidden.
"""

import torch
from torch import Tensor

from gemma_model.layers.linear import Linear
from gemma_model.layers.rms_norm import RMSNorm
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.weights import Weights
from gemma_model.weights.weight import DenseWeight

MIN_MEAN_SQUARE = 1e-5


class AltUp:
    """The predict and correct steps of one layer.

    Args:
        weights: of the checkpoint.
        prefix: ``layers.N.altup.``.
    """

    def __init__(self, config: Gemma3nDecoderConfig, weights: Weights, prefix: str) -> None:
        self._num_streams, self.active = config.altup_num_inputs, config.altup_active_idx
        self._input_scale = 1 / config.hidden_size
        norm = weights.take(prefix + "router_norm.weight")
        self.router_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, norm)
        self.modality_router, self.prediction_coefs, self.correction_coefs = (
            Linear(DenseWeight(weights.take(f"{prefix}{name}.weight")))
            for name in ("modality_router", "prediction_coefs", "correction_coefs")
        )
        scale = prefix + "correct_output_scale"
        self.correct_output_scale = weights.take(scale) if config.altup_correct_scale else None
        weights.skip([scale], "altup_correct_scale is false")

    def predict(self, streams: Tensor) -> Tensor:
        """The prediction of each stream's value after the layer: ``[M, N, H]`` → ``[M, N, H]``."""
        coefs = self.prediction_coefs(self._modalities(streams[:, self.active]))
        return torch.baddbmm(streams, coefs.view(-1, self._num_streams, self._num_streams), streams)

    def correct(self, predicted: Tensor, activated: Tensor) -> Tensor:
        """Correct the predictions ``[M, N, H]`` by the layer's output for the active stream ``[M, H]``."""
        coefs = self.correction_coefs(self._modalities(activated)) + 1.0
        innovation = activated - predicted[:, self.active]
        return torch.addcmul(predicted, coefs.unsqueeze(2), innovation.unsqueeze(1))

    def scale_corrected_output(self, corrected: Tensor) -> Tensor:
        """The scaled active stream, the input of the per-layer gate: ``[M, N, H]`` → ``[M, H]``."""
        active = corrected[:, self.active]
        return active if self.correct_output_scale is None else active * self.correct_output_scale

    def _modalities(self, x: Tensor) -> Tensor:
        routed = self.modality_router(self.router_norm(x) * self._input_scale)
        return torch.tanh(routed.float()).to(x.dtype)


class AltUpProjections:
    """From one embedding to N streams, and back to one hidden state.

    Args:
        weights: of the checkpoint.
    """

    def __init__(self, config: Gemma3nDecoderConfig, weights: Weights) -> None:
        def projections(name: str) -> list[Linear]:
            names = (f"altup_{name}.{i}.weight" for i in range(config.altup_num_inputs - 1))
            return [Linear(weights.take_matrix(name), weights.cpu_kernels) for name in names]

        self._projections = projections("projections")
        self._unembed_projections = projections("unembed_projections")

    def split(self, x: Tensor) -> Tensor:
        """``[M, H]`` → ``[M, N, H]``; every stream has the magnitude of ``x``."""
        others = (_with_magnitude_of(x, projection(x)) for projection in self._projections)
        return torch.stack((x, *others), dim=1)

    def merge(self, streams: Tensor) -> Tensor:
        """``[M, N, H]`` → ``[M, H]``: the mean of the first stream and the others, projected, scaled."""
        first, *rest = streams.unbind(dim=1)
        pairs = zip(self._unembed_projections, rest, strict=True)
        others = (_with_magnitude_of(first, projection(x)) for projection, x in pairs)
        return torch.stack((first, *others), dim=1).mean(dim=1)


def _with_magnitude_of(target: Tensor, x: Tensor) -> Tensor:
    """``x``, scaled to the root mean square of ``target``."""
    wanted = target.square().mean(dim=-1, keepdim=True).sqrt()
    own = x.square().mean(dim=-1, keepdim=True).clamp(min=MIN_MEAN_SQUARE).sqrt()
    return x * wanted / own
