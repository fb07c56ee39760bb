import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from gemma_model.nn.cache import KVCache
from gemma_model.nn.config import TextConfig
from gemma_model.nn.text import Decoder
from gemma_model.nn.towers import Towers
from gemma_model.nn.weights import Weights, open_weights


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


@pytest.fixture(scope="session", params=["as published", "nothing shared", "odd sizes"])
def model(
    request: pytest.FixtureRequest, folder_of: Callable[[str], Path], oracle_of: Callable[[str], Any]
) -> Model:
    folder, oracle = folder_of(request.param), oracle_of(request.param)
    config = json.loads((folder / "config.json").read_text())
    text = TextConfig.read(config)
    weights = open_weights(folder)
    towers = Towers(config, weights, torch.device("cpu"), torch.float32)
    decoder = Decoder(text, weights)
    with torch.inference_mode():
        decoder.embed.set_hard(*towers.hard_embeddings())
    return Model(folder, text, weights, decoder, towers, oracle)
