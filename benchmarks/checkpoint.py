"""Random Gemma 3n checkpoints of real sizes, to measure speed and memory without the published weights.

python -m benchmarks.checkpoint e4b FOLDER     the published sizes with all encoders: bf16, 15.7 GB
python -m benchmarks.checkpoint small FOLDER   25 layers with the vocabulary of 262,400: bf16, 3.9 GB
Quantised forms: gemma-triton quantize FOLDER TARGET --format int4
"""

import argparse
import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
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

from gemma_model.testing import tiny_checkpoint
from gemma_model.testing.tiny_tokenizer import CHAT_TEMPLATE, build_tokenizer

TEXT_VOCAB, MM_VOCAB = 262_144, 128
SHARD_BYTES = 4 * 10**9
NOISE = 33_554_467
"""Elements of the noise that all matrices are cut from; a prime number, so that rows do not repeat."""

SIZES: Mapping[str, Mapping[str, Any]] = {
    "e4b": {"text": {}, "vision": {}, "audio": {}},
    "small": {
        "text": {
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 25,
            "num_kv_shared_layers": 5,
            "head_dim": 64,
            "sliding_window": 128,
            "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 15,
        },
        "vision": {"model_args": {"channel_multiplier": 0.25}},
        "audio": {
            "hidden_size": 192,
            "conf_num_hidden_layers": 2,
            "conf_num_attention_heads": 4,
            "sscp_conv_channel_size": [32, 16],
        },
    },
}


def build_config(size: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> Gemma3nConfig:
    """The configuration of a size."""
    eos = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    config = tiny_checkpoint.join_configs(
        Gemma3nTextConfig(**size["text"], eos_token_id=eos),
        Gemma3nVisionConfig(**size["vision"], vocab_offset=TEXT_VOCAB, vocab_size=MM_VOCAB),
        Gemma3nAudioConfig(**size["audio"], vocab_offset=TEXT_VOCAB + MM_VOCAB, vocab_size=MM_VOCAB),
        tokenizer,
        image_tokens=256,
        audio_tokens=188,
    )
    config.architectures, config.dtype = ["Gemma3nForConditionalGeneration"], "bfloat16"
    return config


def shapes_of(config: Gemma3nConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all tensors; KV-shared layers have keys and values, as in published files."""
    with torch.device("meta"):
        state = Gemma3nForConditionalGeneration(config).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if name != "lm_head.weight"}
    text = config.text_config
    for layer in range(text.num_hidden_layers - text.num_kv_shared_layers, text.num_hidden_layers):
        prefix, width = (
            f"model.language_model.layers.{layer}.self_attn.",
            text.num_key_value_heads * text.head_dim,
        )
        shapes |= {f"{prefix}{name}.weight": (width, text.hidden_size) for name in ("k_proj", "v_proj")}
        shapes[f"{prefix}k_norm.weight"] = (text.head_dim,)
    return shapes


class RandomTensors:
    """Values with which no layer overwhelms the others, and outputs depend on the prompt."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)
        self._noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(0))
        self._scaled: dict[int, np.ndarray[Any, Any]] = {}

    def write(self, file: BinaryIO, name: str, shape: Sequence[int], per_layer_width: int) -> None:
        """Write a tensor as bf16."""
        if len(shape) < 2:
            self._vector(name, shape).to(torch.bfloat16).view(torch.int16).numpy().tofile(file)
            return
        fan_in = math.prod(shape[1:]) if "embed_tokens_per_layer" not in name else per_layer_width
        noise, left = self._noise_of(fan_in), math.prod(shape)
        start = int(self._generator.integers(NOISE))
        while left:
            count = min(NOISE - start, left)
            noise[start : start + count].tofile(file)
            left, start = left - count, (start + count) % NOISE

    def _noise_of(self, fan_in: int) -> np.ndarray[Any, Any]:
        if fan_in not in self._scaled:
            scaled = (self._noise * fan_in**-0.5).to(torch.bfloat16).view(torch.int16).numpy()
            self._scaled = {fan_in: scaled}  # the last one only: each has 67 MB
        return self._scaled[fan_in]

    def _vector(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        if name == "model.language_model.norm.weight":  # random signs: a token does not predict itself
            return torch.from_numpy(self._generator.choice([-1.0, 1.0], shape))
        if name.endswith("bias") or "per_dim_scale" in name:
            return torch.zeros(*shape)
        small = ".post_" in name or "layer_scale" in name
        return torch.full(shape, 1 / 16 if "q_norm" in name else 0.2 if small else 1.0)


def shards(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Names, in files of at most ``SHARD_BYTES``; a larger tensor has a file of its own."""
    names: list[str] = []
    size = 0
    for name in sorted(shapes):
        own = 2 * math.prod(shapes[name])
        if names and size + own > SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += own
    yield names


def write_weights(folder: Path, shapes: Mapping[str, tuple[int, ...]], per_layer_width: int) -> None:
    """Write the shards and their index."""
    tensors, files = RandomTensors(), list(shards(shapes))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(files, 1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        header, size = _header(shapes, names)
        with (folder / file).open("wb") as out:
            out.write(struct.pack("<Q", len(header)) + header)
            for name in names:
                tensors.write(out, name, shapes[name], per_layer_width)
        weight_map |= dict.fromkeys(names, file)
        print(f"{file}: {size / 1e9:.1f} GB", flush=True)
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _header(shapes: Mapping[str, tuple[int, ...]], names: Sequence[str]) -> tuple[bytes, int]:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        begin, end = end, end + 2 * math.prod(shapes[name])
        entries[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    return text + b" " * (-len(text) % 8), end


def write_checkpoint(folder: Path, size: Mapping[str, Any]) -> None:
    """Write a complete checkpoint."""
    tokenizer = build_tokenizer(mm_vocab=MM_VOCAB, padded_vocab=TEXT_VOCAB)
    config = build_config(size, tokenizer)
    config.save_pretrained(folder)
    tiny_checkpoint.generation_config(tokenizer).save_pretrained(folder)
    Gemma3nProcessor(
        feature_extractor=Gemma3nAudioFeatureExtractor(),
        image_processor=SiglipImageProcessor(
            size={"height": 768, "width": 768}, do_normalize=False, do_convert_rgb=True
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    write_weights(folder, shapes_of(config), config.text_config.hidden_size_per_layer_input)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path, help="must not exist")
    given = parser.parse_args()
    if given.folder.exists():
        raise SystemExit(f"{given.folder} exists already")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    given.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder.parent, prefix=f".{given.folder.name}-") as unfinished:
        complete = Path(unfinished) / "checkpoint"
        complete.mkdir()
        write_checkpoint(complete, SIZES[given.size])
        shutil.move(complete, given.folder)


if __name__ == "__main__":
    main()
