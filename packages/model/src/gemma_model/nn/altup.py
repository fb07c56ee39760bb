"""AltUp: the residual stream is several streams, of which each layer runs on one and predicts the others.

Alternating Updates for Efficient Transformers, https://arxiv.org/abs/2301.13310.
Shapes: M tokens, N streams, H hidden.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gemma_model.nn.config import TextConfig
from gemma_model.nn.ops import Linear, Norm
from gemma_model.nn.weights import Weights

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
        self._norm = Norm(
            config.hidden_size, config.rms_norm_eps, weights.take(prefix + "router_norm.weight")
        )
        self._router = Linear(weights.take(prefix + "modality_router.weight"))
        self._prediction = Linear(weights.take(prefix + "prediction_coefs.weight"))
        self._correction = Linear(weights.take(prefix + "correction_coefs.weight"))
        scale = prefix + "correct_output_scale"
        self._scale = weights.take(scale) if config.altup_correct_scale else None
        weights.leave([scale], "altup_correct_scale is false")

    def predict(self, streams: Tensor) -> Tensor:
        """What the layer will make of each stream: ``[M, N, H]`` → ``[M, N, H]``."""
        mixing = self._prediction(self._route(streams[:, self.active]))
        return torch.baddbmm(streams, mixing.view(-1, self._streams, self._streams), streams)

    def correct(self, predicted: Tensor, activated: Tensor) -> Tensor:
        """The predictions ``[M, N, H]``, moved towards what the layer made of the active one ``[M, H]``."""
        share = self._correction(self._route(activated)) + 1.0
        innovation = activated - predicted[:, self.active]
        return torch.addcmul(predicted, share.unsqueeze(2), innovation.unsqueeze(1))

    def scaled_active(self, corrected: Tensor) -> Tensor:
        """The active stream, as the per-layer input's gate sees it: ``[M, N, H]`` → ``[M, H]``."""
        active = corrected[:, self.active]
        return active if self._scale is None else active * self._scale

    def _route(self, x: Tensor) -> Tensor:
        routed = self._router(self._norm(x) * self._input_scale)
        return torch.tanh(routed.float()).to(x.dtype)


class Streams:
    """From one embedding to N streams, and back.

    Args:
        weights: of the checkpoint.
    """

    def __init__(self, config: TextConfig, weights: Weights) -> None:
        others = range(config.altup_num_inputs - 1)
        into = [weights.take(f"altup_projections.{i}.weight") for i in others]
        out_of = [weights.take(f"altup_unembed_projections.{i}.weight") for i in others]
        self._into = torch.stack(into) if into else None  # [N - 1, H, H]
        self._out_of = torch.stack(out_of) if out_of else None

    def split(self, x: Tensor) -> Tensor:
        """``[M, H]`` → ``[M, N, H]``; every stream has the magnitude of ``x``."""
        if self._into is None:
            return x.unsqueeze(1)
        others = F.linear(x, self._into.flatten(0, 1)).view(x.shape[0], -1, x.shape[1])
        return torch.cat((x.unsqueeze(1), _with_magnitude_of(x.unsqueeze(1), others)), dim=1)

    def merge(self, streams: Tensor) -> Tensor:
        """``[M, N, H]`` → ``[M, H]``: the mean of the first and of the others, projected to its magnitude."""
        if self._out_of is None:
            return streams.squeeze(1)
        first, rest = streams[:, :1], streams[:, 1:]
        others = torch.matmul(rest.transpose(0, 1), self._out_of.transpose(1, 2)).transpose(0, 1)
        return torch.cat((first, _with_magnitude_of(first, others)), dim=1).mean(dim=1)


def _with_magnitude_of(model: Tensor, x: Tensor) -> Tensor:
    wanted = model.square().mean(dim=-1, keepdim=True).sqrt()
    own = x.square().mean(dim=-1, keepdim=True).clamp(min=MIN_MEAN_SQUARE).sqrt()
    return x * wanted / own
