import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from gemma_model.checkpoint import Checkpoint, open_checkpoint
from gemma_model.cpu import kernels
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.models.gemma3n.towers import Towers
from gemma_model.request_processor import RequestProcessor
from gemma_model.settings import Settings
from gemma_model.testing import tiny_checkpoint as checkpoints
from gemma_model.testing import tiny_gemma3
from gemma_model.testing.tiny_gemma3 import Gemma3Shape
from gemma_model.weights import Weights, open_weights


@dataclass(frozen=True)
class Short(checkpoints.Shape):
    """Few layers, of every kind."""

    num_hidden_layers: int = 3
    num_kv_shared_layers: int = 1
    layer_types: tuple[str, ...] = ("sliding_attention", "full_attention", "sliding_attention")
    activation_sparsity_pattern: tuple[float, ...] = (0.95, 0.0, 0.0)


SHAPES: dict[str, checkpoints.Shape | Gemma3Shape] = {
    "as published": checkpoints.Shape(),
    "nothing shared": checkpoints.Shape(
        num_hidden_layers=5,
        num_kv_shared_layers=0,
        altup_num_inputs=1,
        sliding_window=8,
        activation_sparsity_pattern=(0.0,) * 5,
    ),
    "odd sizes": checkpoints.Shape(
        hidden_size=48,
        num_hidden_layers=7,
        num_kv_shared_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        altup_num_inputs=2,
        sliding_window=5,
        activation_sparsity_pattern=(0.5,) * 7,
    ),
    "quick": Short(),
    "gemma 3": Gemma3Shape(),
    "gemma 3, odd sizes": Gemma3Shape(
        hidden_size=60,
        intermediate_size=100,
        num_hidden_layers=7,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=12,
        query_pre_attn_scalar=7,
        sliding_window=5,
        final_logit_softcapping=3.0,
    ),
    "gemma 3 with vision": Gemma3Shape(
        num_key_value_heads=2, num_hidden_layers=6, head_dim=32, rope_factor=8.0, vision=True
    ),
}
TEXT_MODELS = ("gemma 3", "gemma 3, odd sizes")


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a checkpoint of one of the shapes, each made once."""
    made: dict[str, Path] = {}

    def get(shape: str) -> Path:
        if shape not in made:
            made[shape] = tmp_path_factory.mktemp("checkpoints") / "gemma3n-tiny"
            wanted = SHAPES[shape]
            if isinstance(wanted, Gemma3Shape):
                tiny_gemma3.make(made[shape], wanted)
            else:
                checkpoints.make(made[shape], shape=wanted)
        return made[shape]

    return get


@pytest.fixture(scope="session")
def oracle_of(folder_of: Callable[[str], Path]) -> Callable[[str], Any]:
    """What transformers makes of it."""
    loaded: dict[str, Any] = {}

    def get(shape: str) -> Any:
        if shape not in loaded:
            torch.set_num_threads(1)
            auto_model = AutoModelForCausalLM if shape in TEXT_MODELS else AutoModelForImageTextToText
            loaded[shape] = auto_model.from_pretrained(folder_of(shape)).eval()
        return loaded[shape]

    return get


@pytest.fixture(scope="session")
def tiny(folder_of: Callable[[str], Path]) -> Path:
    """The tiny checkpoint."""
    return folder_of("as published")


@dataclass(frozen=True)
class Model:
    folder: Path
    config: Gemma3nDecoderConfig
    weights: Weights
    decoder: Gemma3nDecoder
    towers: Towers
    oracle: Any

    def cache(self, slots: int = 1, length: int = 128, extra_columns: int = 0) -> KVCache:
        return KVCache(self.config.cache_spec, slots, length, extra_columns)


@pytest.fixture(scope="session", params=["as published", "nothing shared", "odd sizes"])
def model(
    request: pytest.FixtureRequest, folder_of: Callable[[str], Path], oracle_of: Callable[[str], Any]
) -> Model:
    folder, oracle = folder_of(request.param), oracle_of(request.param)
    config = json.loads((folder / "config.json").read_text())
    text = Gemma3nDecoderConfig.read(config)
    weights = open_weights(folder)
    towers = Towers(config, weights, torch.device("cpu"), torch.float32)
    decoder = Gemma3nDecoder(text, weights)
    with torch.inference_mode():
        decoder.embed_tokens.set_hard_embeddings(*towers.hard_embeddings())
    return Model(folder, text, weights, decoder, towers, oracle)


@pytest.fixture(scope="session")
def cpu_kernels() -> None:
    """The C++ kernels are loaded."""
    if not kernels.load():
        pytest.skip("no compiler or no processor for the kernels here; the log says which")


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    """The tiny checkpoint."""
    return open_checkpoint(tiny)


@pytest.fixture(scope="module")
def processor(checkpoint: Checkpoint) -> Iterator[RequestProcessor]:
    """The request processor of the tiny checkpoint, with low limits."""
    settings = Settings(
        max_images=2, max_audio=1, max_num_seqs=4, model_name="served", max_grammar_bytes=5000
    )
    processor = RequestProcessor(checkpoint, settings)
    yield processor
    processor.close()
