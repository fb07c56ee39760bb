"""Builds gemma3n-nano: its tokenizer, configuration, initial weights and processor."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    Gemma3nAudioConfig,
    Gemma3nAudioFeatureExtractor,
    Gemma3nConfig,
    Gemma3nForConditionalGeneration,
    Gemma3nProcessor,
    Gemma3nTextConfig,
    Gemma3nVisionConfig,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
)

from demo import sizes
from demo.lessons import chat_lesson, picture_lesson, sound_lesson
from demo.pictures import make_scene
from demo.sounds import Sound, make_sound
from gemma_model.testing import tiny_checkpoint, tiny_tokenizer
from gemma_model.tool_calls import describe_tools, render_calls
from gemma_wire import TextPart

CORPUS_LESSONS = 6_000
"""Number of lessons of each kind in the training corpus of the tokenizer."""
ADDED = 0.2
"""Initial size of the output of each block, compared with 1 for the residual stream."""


def build_tokenizer(seed: int, lessons: int = CORPUS_LESSONS) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are mostly the words of the lessons."""
    return tiny_tokenizer.build_tokenizer(
        list(_corpus(seed, lessons)), sizes.TEXT_VOCAB, sizes.MM_VOCAB, words=True
    )


def _corpus(seed: int, lessons: int) -> Iterator[str]:
    rng = random.Random(f"corpus-{seed}")
    scenes = [make_scene(rng) for _ in range(200)]
    heard = sounds_of(seed, 200)
    for _ in range(lessons):
        for lesson in (chat_lesson(rng), picture_lesson(rng, scenes), sound_lesson(rng, heard)):
            if lesson.conversation.tools:
                yield describe_tools(lesson.conversation.tools)
            for message in lesson.conversation.messages:
                yield from (part.text for part in message.parts if isinstance(part, TextPart))
                if message.tool_calls:
                    yield render_calls(message.tool_calls)


def sounds_of(seed: int, count: int) -> list[Sound]:
    """The sounds of a series without their recordings."""
    return [make_sound(np.random.default_rng([seed, number]))[0] for number in range(count)]


def build_config(tokenizer: PreTrainedTokenizerFast) -> Gemma3nConfig:
    """The configuration of the text model and both towers, with the token ids of the tokenizer."""
    text = Gemma3nTextConfig(
        **sizes.TEXT,
        vocab_size=sizes.TEXT_VOCAB + 2 * sizes.MM_VOCAB,
        vocab_size_per_layer_input=sizes.TEXT_VOCAB,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
    )
    vision = Gemma3nVisionConfig(
        model_args=sizes.vision_args(), vocab_offset=sizes.TEXT_VOCAB, vocab_size=sizes.MM_VOCAB
    )
    audio = Gemma3nAudioConfig(
        **sizes.AUDIO, vocab_offset=sizes.TEXT_VOCAB + sizes.MM_VOCAB, vocab_size=sizes.MM_VOCAB
    )
    return tiny_checkpoint.join_configs(
        text, vision, audio, tokenizer, sizes.IMAGE_TOKENS, sizes.AUDIO_TOKENS
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Any:
    """``Gemma3nForConditionalGeneration`` with initial weights for training."""
    model: Any = Gemma3nForConditionalGeneration(build_config(tokenizer))
    _begin(model.model.language_model)
    return model


@torch.no_grad()
def _begin(decoder: Any) -> None:
    """Initialise a small decoder; with the default weights of transformers it hardly trains.

    Queries and keys are normalised and their products are not scaled, so each head would begin with attention
    to a single token. The output of each block is normalised to the size of the residual stream and would
    dominate it. The scale before the per-layer gate is initially zero, where the gradient of the norm after
    the gate is 1,000.
    """
    width = decoder.config.hidden_size
    decoder.embed_tokens.weight.normal_(
        0, width**-0.5
    )  # after the scale of the embedding, the size of soft tokens
    for into, out in zip(decoder.altup_projections, decoder.altup_unembed_projections, strict=True):
        nn.init.orthogonal_(into.weight)
        out.weight.copy_(into.weight.T)  # the inverse of the projection
    for layer in decoder.layers:
        layer.self_attn.q_norm.weight.fill_(decoder.config.head_dim**-0.5)
        layer.altup.correct_output_scale.fill_(1.0)
        for norm in (
            layer.post_attention_layernorm,
            layer.post_feedforward_layernorm,
            layer.laurel.post_laurel_norm,
            layer.post_per_layer_input_norm,
        ):
            norm.weight.fill_(ADDED)


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Gemma3nProcessor:
    """The processor: resizes images to a square, with values in [-1, 1]; centred values train faster."""
    side = sizes.IMAGE_SIDE
    return Gemma3nProcessor(
        feature_extractor=Gemma3nAudioFeatureExtractor(),
        image_processor=SiglipImageProcessor(
            size={"height": side, "width": side},
            resample=2,  # bilinear
            do_normalize=True,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            do_convert_rgb=True,
        ),
        tokenizer=tokenizer,
        chat_template=tiny_tokenizer.CHAT_TEMPLATE,
        image_seq_length=sizes.IMAGE_TOKENS,
        audio_seq_length=sizes.AUDIO_TOKENS,
    )
