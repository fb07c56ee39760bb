"""The vision and audio towers: transformers' own modules, and how their output enters the decoder."""

import copy
from collections.abc import Generator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Gemma3nConfig
from transformers.initialization import no_init_weights
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nMultimodalEmbedder

from gemma_model.weights import Weights


class Towers:
    """Both towers with their embedders.

    Args:
        config: ``config.json`` of the whole checkpoint.
        weights: of the checkpoint; its tower parts are used up.
        dtype: of the computation.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Weights, device: torch.device, dtype: torch.dtype
    ) -> None:
        own = copy.deepcopy(dict(config))  # timm writes into what it is given
        self._config = Gemma3nConfig.from_dict(own)
        self._device, self._dtype = device, dtype
        text, vision = self._config.text_config, self._config.vision_config
        audio = self._config.audio_config
        with no_init_weights():  # random numbers for a billion parameters take longer than reading them
            made: dict[str, nn.Module] = {
                "vision_tower": AutoModel.from_config(vision),
                "audio_tower": AutoModel.from_config(audio),
                "embed_vision": Gemma3nMultimodalEmbedder(vision, text),
                "embed_audio": Gemma3nMultimodalEmbedder(audio, text),
            }
        for part, module in made.items():
            module.load_state_dict(weights.take_under(part + "."), strict=True, assign=True)
            module.eval().requires_grad_(False).to(device, dtype)
        self._parts = made

    def hard_embeddings(self) -> tuple[int, Tensor]:
        """The first id that is the towers' own, and the embeddings from there on, ``[n, hidden]``."""
        first, second = self._config.vision_config.vocab_offset, self._config.audio_config.vocab_offset
        end = self._config.text_config.vocab_size
        vision = self._embed("embed_vision", torch.arange(first, second))
        audio = self._embed("embed_audio", torch.arange(second, end))
        return first, torch.cat((vision, audio))

    def _embed(self, part: str, ids: Tensor) -> Tensor:
        embedded: Tensor = self._parts[part](input_ids=ids.to(self._device))
        return embedded

    def see(self, pixels: Tensor) -> Tensor:
        """As ``seeing``, without a pause."""
        return _finished(self.seeing(pixels))

    def hear(self, log_mel: Tensor) -> Tensor:
        """As ``hearing``, without a pause."""
        return _finished(self.hearing(log_mel))

    def seeing(self, pixels: Tensor) -> Generator[None, None, Tensor]:
        """Images of one size, ``[n, 3, height, width]`` → soft tokens, ``[n, soft tokens, hidden]``.

        It pauses after each block of the encoder. The blocks are run here, one by one, as timm's
        ``MobileNetV5Encoder.forward_features`` does it.
        """
        tower: Any = self._parts["vision_tower"].timm_model
        x = tower.conv_stem(pixels.to(self._device, self._dtype))
        fused = [x] if 0 in tower.msfa_indices else []
        for stage, blocks in enumerate(tower.blocks, 1):
            for block in blocks:
                yield
                x = block(x)
            fused += [x] if stage in tower.msfa_indices else []
        yield
        seen = tower.msfa(fused)
        width, count = self._config.vision_config.hidden_size, self._config.vision_soft_tokens_per_image
        flat = seen.reshape(-1, width, count).transpose(1, 2)
        embedded: Tensor = self._parts["embed_vision"](inputs_embeds=flat * width**0.5)
        return embedded

    def hearing(self, log_mel: Tensor) -> Generator[None, None, Tensor]:
        """Audio of one length, ``[n, frames, bins]`` → soft tokens, ``[n, soft tokens, hidden]``.

        It pauses after each block of the encoder. The blocks are run here, one by one, as transformers'
        ``Gemma3nAudioEncoder.forward`` does it.

        Each is heard as transformers hears it alone: no frame stands for padding, which would change the last
        soft token of a sound. What the tower makes of the frames is filled up to the number of soft tokens
        with the embedding of the last id.

        Raises:
            ValueError: when they are longer than their soft tokens.
        """
        tower: Any = self._parts["audio_tower"]
        heard = tower.subsample_conv_projection(log_mel.to(self._device, self._dtype))
        padded = torch.zeros(heard.shape[:2], dtype=torch.bool, device=self._device)
        for block in tower.conformer:
            yield
            heard = block(heard, padded)
        heard = heard[:, :: self._config.audio_config.conf_reduction_factor]
        tokens: Tensor = self._parts["embed_audio"](inputs_embeds=heard)
        missing = self._config.audio_soft_tokens_per_image - tokens.shape[1]
        if missing < 0:
            raise ValueError(f"{tokens.shape[1]} soft tokens, {tokens.shape[1] + missing} are the limit")
        filler = self._embed("embed_audio", torch.tensor([[self._config.text_config.vocab_size - 1]]))
        return torch.cat((tokens, filler.expand(len(tokens), missing, -1)), dim=1)


def _finished(encoding: Generator[None, None, Tensor]) -> Tensor:
    try:
        while True:
            next(encoding)
    except StopIteration as finished:
        tokens: Tensor = finished.value
        return tokens
