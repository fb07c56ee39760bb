"""The vision and audio towers: transformers' own modules, and how their output enters the decoder."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Gemma3nConfig
from transformers.initialization import no_init_weights
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nMultimodalEmbedder

from gemma_model.nn.weights import Weights


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
        """Pictures of one size, ``[n, 3, height, width]`` → soft tokens, ``[n, soft tokens, hidden]``."""
        seen = self._parts["vision_tower"](
            pixel_values=pixels.to(self._device, self._dtype), do_pooling=False
        )
        width, count = self._config.vision_config.hidden_size, self._config.vision_soft_tokens_per_image
        flat = seen.last_hidden_state.reshape(-1, width, count).transpose(1, 2)
        embedded: Tensor = self._parts["embed_vision"](inputs_embeds=flat * width**0.5)
        return embedded

    def hear(self, log_mel: Tensor) -> Tensor:
        """Sounds of one length, ``[n, frames, bins]`` → soft tokens, ``[n, soft tokens, hidden]``.

        Each is heard as transformers hears it alone: no frame stands for padding, which would change the last
        soft token of a sound. What the tower makes of the frames is filled up to the number of soft tokens
        with the embedding of the last id.

        Raises:
            ValueError: when they are longer than their soft tokens.
        """
        features = log_mel.to(self._device, self._dtype)
        padded = torch.zeros(features.shape[:2], dtype=torch.bool, device=self._device)
        heard = self._parts["audio_tower"](features, padded).last_hidden_state
        tokens: Tensor = self._parts["embed_audio"](inputs_embeds=heard)
        missing = self._config.audio_soft_tokens_per_image - tokens.shape[1]
        if missing < 0:
            raise ValueError(f"{tokens.shape[1]} soft tokens, {tokens.shape[1] + missing} are the limit")
        filler = self._embed("embed_audio", torch.tensor([[self._config.text_config.vocab_size - 1]]))
        return torch.cat((tokens, filler.expand(len(tokens), missing, -1)), dim=1)
