"""Makes a tiny Gemma 3n checkpoint with random weights.

Usage: ``python -m gemma_model.testing.tiny_checkpoint FOLDER``.

Every class is the real one and every oddity is there (sliding and full attention, KV-shared layers,
AltUp, LAuReL, per-layer inputs, activation sparsity, both towers), in the layout of the published
checkpoints. The same seed gives the same bytes. It generates gibberish, within milliseconds.
"""

import argparse
import copy
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from timm.models._efficientnet_builder import decode_arch_def
from torch import nn
from transformers import (
    Gemma3nAudioConfig,
    Gemma3nAudioFeatureExtractor,
    Gemma3nConfig,
    Gemma3nForConditionalGeneration,
    Gemma3nProcessor,
    Gemma3nTextConfig,
    Gemma3nVisionConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
)

from gemma_model.testing.tiny_tokenizer import (
    CHAT_TEMPLATE,
    MM_VOCAB,
    MULTIMODAL,
    TEXT_VOCAB,
    build_tokenizer,
)

IMAGE_SIDE = 64  # pixels
IMAGE_TOKENS = 16
AUDIO_TOKENS = 188

VISION_STAGES = [  # in timm's notation; see decode_arch_def
    ["er_r1_k3_s2_e2_c16"],
    ["uir_r1_a3_k3_s2_e2_c24"],
    ["uir_r1_a3_k3_s2_e2_c32"],
    ["uir_r1_a3_k3_s2_e2_c48", "mqa_r1_k3_h2_s1_d16_c48", "uir_r1_a0_k0_s1_e2_c48"],
]


class Saved(Protocol):
    """What has files of its own in a checkpoint: a model, a processor or a tokenizer."""

    def save_pretrained(self, save_directory: Any) -> Any:
        """Write the files."""


@dataclass(frozen=True)
class Shape:
    """The numbers of the toy decoder; any that ``Gemma3nTextConfig`` accepts."""

    hidden_size: int = 64
    intermediate_size: int = 128
    num_hidden_layers: int = 10
    num_kv_shared_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 16
    hidden_size_per_layer_input: int = 16
    laurel_rank: int = 8
    altup_num_inputs: int = 4
    sliding_window: int = 32
    max_position_embeddings: int = 4096
    activation_sparsity_pattern: tuple[float, ...] = (0.95, 0.95, *(0.0,) * 8)


def build_config(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> Gemma3nConfig:
    """The configuration of all three networks, with the tokenizer's own ids."""
    text = Gemma3nTextConfig(
        **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(shape).items()},
        vocab_size=TEXT_VOCAB + 2 * MM_VOCAB,
        vocab_size_per_layer_input=TEXT_VOCAB,
        initializer_range=0.2,  # wide enough that the prompt decides what is said
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
    )
    vision = Gemma3nVisionConfig(
        model_args={
            "block_args": decode_arch_def(VISION_STAGES),
            "stem_size": 8,
            "msfa_output_resolution": 4,
        },
        vocab_offset=TEXT_VOCAB,
        vocab_size=MM_VOCAB,
    )
    audio = Gemma3nAudioConfig(
        hidden_size=32,
        conf_num_hidden_layers=1,
        conf_num_attention_heads=2,
        sscp_conv_channel_size=[8, 4],
        vocab_offset=TEXT_VOCAB + MM_VOCAB,
        vocab_size=MM_VOCAB,
    )
    return join_configs(text, vision, audio, tokenizer, IMAGE_TOKENS, AUDIO_TOKENS)


def join_configs(
    text: Gemma3nTextConfig,
    vision: Gemma3nVisionConfig,
    audio: Gemma3nAudioConfig,
    tokenizer: PreTrainedTokenizerFast,
    image_tokens: int,
    audio_tokens: int,
) -> Gemma3nConfig:
    """One configuration for all three networks, with the tokenizer's own ids."""
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in MULTIMODAL.items()}
    return Gemma3nConfig(
        text_config=text,
        vision_config=vision,
        audio_config=audio,
        vision_soft_tokens_per_image=image_tokens,
        audio_soft_tokens_per_image=audio_tokens,
        eos_token_id=text.eos_token_id,
        **{f"{name}_id": value for name, value in ids.items()},
    )


def randomise(model: nn.Module) -> None:
    """Give the tensors that are initialised to zero or one something to say, so that tests see them."""
    for name, parameter in sorted(model.named_parameters()):
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            noise = torch.randn_like(parameter) * 0.1
            parameter.data.add_(noise) if "norm" in name else parameter.data.copy_(noise)


def make(folder: Path, seed: int = 0, shape: Shape | None = None, dtype: torch.dtype = torch.float32) -> None:
    """Write the checkpoint; nothing is left behind when it fails halfway.

    Args:
        folder: where to; replaced if it exists.
        seed: same seed, same bytes.
        shape: of the decoder.
        dtype: of the stored weights.
    """
    tokenizer = build_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = build_config(shape or Shape(), tokenizer)
        model_args = copy.deepcopy(config.vision_config.model_args)
        model = Gemma3nForConditionalGeneration(config).eval()
        config.vision_config.model_args = model_args  # timm leaves layer classes in what it was given
        with torch.no_grad():
            randomise(model)
    model.generation_config = generation_config(tokenizer)
    processor = Gemma3nProcessor(
        feature_extractor=Gemma3nAudioFeatureExtractor(),
        image_processor=SiglipImageProcessor(
            size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}, do_normalize=False, do_convert_rgb=True
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
        image_seq_length=IMAGE_TOKENS,
        audio_seq_length=AUDIO_TOKENS,
    )
    write(folder, model.to(dtype), processor)


def write(folder: Path, *parts: Saved) -> None:
    """Write a checkpoint in the published layout, replacing the folder; completely or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
        for part in parts:
            part.save_pretrained(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(unfinished, folder, copy_function=shutil.copyfile)
        folder.chmod(0o755)  # the mode of a temporary folder allows no other user


def generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Sampling parameters as the published checkpoints recommend it."""
    end_of_turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, end_of_turn],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        top_k=64,
        top_p=0.95,
    )


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make a tiny random Gemma 3n checkpoint.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments: Any = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    make(arguments.folder, arguments.seed)
    size = sum(file.stat().st_size for file in arguments.folder.iterdir())
    print(f"made {arguments.folder}: {size / 1e6:.1f} MB, random weights, seed {arguments.seed}")


if __name__ == "__main__":
    main()
