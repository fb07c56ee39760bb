"""AltUp: the residual stream is several streams, of which each layer runs on one and predicts the others.

Alternating Updates for Efficient Transformers, https://arxiv.org/abs/2301.13310.
Shapes: M tokens, N streams, H hidden.
"""

import torch
from torch import Tensor

from gemma_model.layers.linear import Linear, Norm
from gemma_model.models.gemma3n.config import TextConfig
from gemma_model.weights import Weights

MIN_MEAN_SQUARE = 1e-5


class AltUp:
    """One layer's predict and correct steps.

    Args:
        weights: of the checkpoint.
        prefix: ``layers.N.altup.``.
    """

    def __init__(self, config: TextConfig, weights: Weights, prefix: str) -> None:
        self._streams, self.active = config.altup_num_inputs, config.altup_active_idx
        self._input_scale = 1 / config.hidden_size
        weight = weights.take(prefix + "router_norm.weight")
        self.norm = Norm(config.hidden_size, config.rms_norm_eps, weight)
        self.router = Linear(weights.take(prefix + "modality_router.weight"))
        self.prediction = Linear(weights.take(prefix + "prediction_coefs.weight"))
        self.correction = Linear(weights.take(prefix + "correction_coefs.weight"))
        scale = prefix + "correct_output_scale"
        self.scale = weights.take(scale) if config.altup_correct_scale else None
        weights.leave([scale], "altup_correct_scale is false")

    def predict(self, streams: Tensor) -> Tensor:
        """What the layer will make of each stream: ``[M, N, H]`` → ``[M, N, H]``."""
        mixing = self.prediction(self._route(streams[:, self.active]))
        return torch.baddbmm(streams, mixing.view(-1, self._streams, self._streams), streams)

    def correct(self, predicted: Tensor, activated: Tensor) -> Tensor:
        """The predictions ``[M, N, H]``, moved towards what the layer made of the active one ``[M, H]``."""
        share = self.correction(self._route(activated)) + 1.0
        innovation = activated - predicted[:, self.active]
        return torch.addcmul(predicted, share.unsqueeze(2), innovation.unsqueeze(1))

    def scaled_active(self, corrected: Tensor) -> Tensor:
        """The active stream, as the per-layer input's gate sees it: ``[M, N, H]`` → ``[M, H]``."""
        active = corrected[:, self.active]
        return active if self.scale is None else active * self.scale

    def _route(self, x: Tensor) -> Tensor:
        routed = self.router(self.norm(x) * self._input_scale)
        return torch.tanh(routed.float()).to(x.dtype)


class Streams:
    """From one embedding to N streams, and back.

    Args:
        weights: of the checkpoint.
    """

    def __init__(self, config: TextConfig, weights: Weights) -> None:
        def projections(name: str) -> list[Linear]:
            names = (f"altup_{name}.{i}.weight" for i in range(config.altup_num_inputs - 1))
            return [Linear(weights.take(name), weights.compiled) for name in names]

        self._into, self._out_of = projections("projections"), projections("unembed_projections")

    def split(self, x: Tensor) -> Tensor:
        """``[M, H]`` → ``[M, N, H]``; every stream has the magnitude of ``x``."""
        others = (_with_magnitude_of(x, into(x)) for into in self._into)
        return torch.stack((x, *others), dim=1)

    def merge(self, streams: Tensor) -> Tensor:
        """``[M, N, H]`` → ``[M, H]``: the mean of the first and of the others, projected to its magnitude."""
        first, *rest = streams.unbind(dim=1)
        others = (_with_magnitude_of(first, out_of(x)) for out_of, x in zip(self._out_of, rest, strict=True))
        return torch.stack((first, *others), dim=1).mean(dim=1)


def _with_magnitude_of(model: Tensor, x: Tensor) -> Tensor:
    wanted = model.square().mean(dim=-1, keepdim=True).sqrt()
    own = x.square().mean(dim=-1, keepdim=True).clamp(min=MIN_MEAN_SQUARE).sqrt()
    return x * wanted / own
