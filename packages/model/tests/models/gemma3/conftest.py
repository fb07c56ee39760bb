import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3.config import Gemma3DecoderConfig
from gemma_model.models.gemma3.decoder import Gemma3Decoder
from gemma_model.models.gemma3.loading import VISION_PARTS
from gemma_model.weights import open_weights

SHAPES = ("gemma 3", "gemma 3, odd sizes", "gemma 3 with vision")


@dataclass(frozen=True)
class Model:
    folder: Path
    config: Gemma3DecoderConfig
    decoder: Gemma3Decoder
    oracle: Any

    def cache(self, slots: int = 1, length: int = 128, extra_columns: int = 0) -> KVCache:
        return KVCache(self.config.cache_spec, slots, length, extra_columns, dtype=self.decoder.dtype)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(params=SHAPES)
def model(
    request: pytest.FixtureRequest, folder_of: Callable[[str], Path], oracle_of: Callable[[str], Any]
) -> Model:
    folder, oracle = folder_of(request.param), oracle_of(request.param)
    return Model(folder, *load(folder), oracle)


def load(
    folder: Path, dtype: torch.dtype = torch.float32, cpu_kernels: bool = False, device: str = "cpu"
) -> tuple[Gemma3DecoderConfig, Gemma3Decoder]:
    config = Gemma3DecoderConfig.read(json.loads((folder / "config.json").read_text()))
    weights = open_weights(folder, device, dtype, cpu_kernels)
    decoder = Gemma3Decoder(config, weights)
    for part in VISION_PARTS:
        weights.skip_prefix(f"{part}.", "text only")
    weights.check_all_used()
    return config, decoder
