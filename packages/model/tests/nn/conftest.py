import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3nForConditionalGeneration

from gemma_model import tiny
from gemma_model.nn.cache import KVCache
from gemma_model.nn.config import TextConfig
from gemma_model.nn.text import Decoder
from gemma_model.nn.towers import Towers
from gemma_model.nn.weights import Weights, open_weights

SHAPES = {
    "as published": tiny.Shape(),
    "nothing shared": tiny.Shape(
        num_hidden_layers=5,
        num_kv_shared_layers=0,
        altup_num_inputs=1,
        sliding_window=8,
        activation_sparsity_pattern=(0.0,) * 5,
    ),
    "odd sizes": tiny.Shape(
        hidden_size=48,
        num_hidden_layers=7,
        num_kv_shared_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        altup_num_inputs=2,
        sliding_window=5,
        activation_sparsity_pattern=(0.5,) * 7,
    ),
}


@dataclass(frozen=True)
class Model:
    folder: Path
    config: TextConfig
    weights: Weights
    decoder: Decoder
    towers: Towers
    oracle: Any

    def cache(self, slots: int = 1, length: int = 128, rewind: int = 0) -> KVCache:
        return KVCache(self.config, slots, length, rewind)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny.make(folder, seed=3, shape=SHAPES[request.param])
    oracle = Gemma3nForConditionalGeneration.from_pretrained(folder).eval()
    config = json.loads((folder / "config.json").read_text())
    text = TextConfig.read(config)
    weights = open_weights(folder)
    towers = Towers(config, weights, torch.device("cpu"), torch.float32)
    decoder = Decoder(text, weights)
    with torch.inference_mode():
        decoder.embed.set_hard(*towers.hard_embeddings())
    return Model(folder, text, weights, decoder, towers, oracle)
