"""Makes tiny Gemma 3 checkpoints with random weights: a text model, or a complete one with a vision tower."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)

from gemma_model.testing.tiny_checkpoint import generation_config, randomise, write
from gemma_model.testing.tiny_tokenizer import MM_VOCAB, TEXT_VOCAB, build_tokenizer


@dataclass(frozen=True)
class Gemma3Shape:
    """The numbers of the decoder; any that ``Gemma3TextConfig`` accepts."""

    hidden_size: int = 64
    intermediate_size: int = 128
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    num_key_value_heads: int = 1
    head_dim: int = 16
    query_pre_attn_scalar: int = 16
    sliding_window: int = 16
    max_position_embeddings: int = 4096
    rope_factor: float = 1.0
    final_logit_softcapping: float | None = None
    vision: bool = False


def make(folder: Path, shape: Gemma3Shape, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
    """Write the checkpoint; the same seed gives the same bytes.

    Args:
        folder: where to; replaced if it exists.
        shape: of the decoder.
        seed: of the random weights.
        dtype: of the stored weights.
    """
    tokenizer = build_tokenizer()
    text = _text_config(shape, tokenizer)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = _complete(text) if shape.vision else Gemma3ForCausalLM(text)
        randomise(model.eval())
    model.generation_config = generation_config(tokenizer)
    write(folder, model.to(dtype), tokenizer)


def _text_config(shape: Gemma3Shape, tokenizer: PreTrainedTokenizerFast) -> Gemma3TextConfig:
    numbers = asdict(shape)
    del numbers["vision"]
    full = {"rope_type": "default", "rope_theta": 1_000_000.0}
    if (factor := numbers.pop("rope_factor")) != 1:
        full |= {"rope_type": "linear", "factor": factor}
    return Gemma3TextConfig(
        **numbers,
        rope_parameters={
            "full_attention": full,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        vocab_size=TEXT_VOCAB + 2 * MM_VOCAB,
        initializer_range=0.2,  # wide enough that the prompt decides what is said
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
    )


def _complete(text: Gemma3TextConfig) -> Gemma3ForConditionalGeneration:
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config)
