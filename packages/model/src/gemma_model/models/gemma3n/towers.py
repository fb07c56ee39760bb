"""The vision and audio towers: modules of transformers, run block by block.

On a CPU without instructions for bf16, PyTorch's bf16 products take 30 to 150 times as long as those in fp32.
There a block is copied to fp32 when it runs, so that no more than one block is in memory as fp32.
"""

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
    """The towers with their embedders, which project to the decoder's hidden size. One may be missing.

    Args:
        config: ``config.json`` of the complete checkpoint, with ``vision_config``, ``audio_config`` or both.
        weights: of the checkpoint. All parts of these towers are taken.
        dtype: of the computation.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Weights, device: torch.device, dtype: torch.dtype
    ) -> None:
        own = copy.deepcopy(dict(config))  # timm writes into it
        self._config = Gemma3nConfig.from_dict(own)
        self._device, self._dtype = device, dtype
        self._compute_dtype = dtype if device.type != "cpu" or has_fast_bf16() else torch.float32
        text, vision = self._config.text_config, self._config.vision_config
        audio = self._config.audio_config
        own_configs = {"vision": vision, "audio": audio}
        parts: dict[str, nn.Module] = {}
        for name in [name for name in own_configs if config.get(f"{name}_config")]:
            with no_init_weights():  # random initialisation takes longer than loading
                parts[f"{name}_tower"] = AutoModel.from_config(own_configs[name])
                parts[f"embed_{name}"] = Gemma3nMultimodalEmbedder(own_configs[name], text)
        for part, module in parts.items():
            module.load_state_dict(weights.take_prefix(part + "."), strict=True, assign=True)
            module.eval().requires_grad_(False).to(device, dtype)
        self._parts = parts

    def hard_embeddings(self) -> tuple[int, Tensor]:
        """The first token id of the towers, and the embeddings of the ids from there on, ``[n, hidden]``."""
        vision, audio = self._config.vision_config, self._config.audio_config
        ranges = {}
        if "embed_vision" in self._parts:
            ranges["embed_vision"] = range(vision.vocab_offset, vision.vocab_offset + vision.vocab_size)
        if "embed_audio" in self._parts:
            ranges["embed_audio"] = range(audio.vocab_offset, self._config.text_config.vocab_size)
        embedded = [self._embed(part, torch.tensor(ids)) for part, ids in ranges.items()]
        return next(iter(ranges.values())).start, torch.cat(embedded)

    def _embed(self, part: str, ids: Tensor) -> Tensor:
        embedded: Tensor = self._computing(self._parts[part])(input_ids=ids.to(self._device))
        return embedded.to(self._dtype)

    def _project(self, part: str, x: Tensor) -> Tensor:
        embedded: Tensor = self._computing(self._parts[part])(inputs_embeds=x)
        return embedded.to(self._dtype)

    def _computing(self, module: nn.Module) -> Any:
        """The module, or a copy of it in the dtype of the computation."""
        if self._compute_dtype == self._dtype:
            return module
        return copy.deepcopy(module).to(self._compute_dtype)

    def encode_image(self, pixels: Tensor) -> Generator[None, None, Tensor]:
        """Images of one size, ``[n, 3, height, width]`` → soft tokens, ``[n, soft tokens, hidden]``.

        It yields before each block of the encoder. The blocks are run one by one, as in timm's
        ``MobileNetV5Encoder.forward_features``.
        """
        tower: Any = self._parts["vision_tower"].timm_model
        x = self._computing(tower.conv_stem)(pixels.to(self._device, self._compute_dtype))
        feature_maps = [x] if 0 in tower.msfa_indices else []
        for stage, blocks in enumerate(tower.blocks, 1):
            for block in blocks:
                yield
                x = self._computing(block)(x)
            feature_maps += [x] if stage in tower.msfa_indices else []
        yield
        fused = self._computing(tower.msfa)(feature_maps)
        width, count = self._config.vision_config.hidden_size, self._config.vision_soft_tokens_per_image
        flat = fused.reshape(-1, width, count).transpose(1, 2)
        return self._project("embed_vision", flat * width**0.5)

    def encode_audio(self, log_mel: Tensor) -> Generator[None, None, Tensor]:
        """Audio of one length, ``[n, frames, bins]`` → soft tokens, ``[n, soft tokens, hidden]``.

        It yields before each block of the encoder. The blocks are run one by one, as in transformers'
        ``Gemma3nAudioEncoder.forward``. No frame is padding, which would change the last soft token. The
        result is padded to the number of soft tokens with the embedding of the last token id.

        Raises:
            ValueError: when the audio is longer than its soft tokens.
        """
        tower: Any = self._parts["audio_tower"]
        subsample = self._computing(tower.subsample_conv_projection)
        hidden = subsample(log_mel.to(self._device, self._compute_dtype))
        padded = torch.zeros(hidden.shape[:2], dtype=torch.bool, device=self._device)
        for block in tower.conformer:
            yield
            hidden = self._computing(block)(hidden, padded)
        hidden = hidden[:, :: self._config.audio_config.conf_reduction_factor]
        tokens = self._project("embed_audio", hidden)
        missing = self._config.audio_soft_tokens_per_image - tokens.shape[1]
        if missing < 0:
            raise ValueError(f"{tokens.shape[1]} soft tokens; the limit is {tokens.shape[1] + missing}")
        filler = self._embed("embed_audio", torch.tensor([[self._config.text_config.vocab_size - 1]]))
        return torch.cat((tokens, filler.expand(len(tokens), missing, -1)), dim=1)


def has_fast_bf16() -> bool:
    """Whether PyTorch's bf16 products are as fast as those in fp32 on this CPU."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - there is no public name
