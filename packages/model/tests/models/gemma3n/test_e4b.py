"""The full-size model on the meta device: nothing is computed, everything is counted."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, Gemma3nConfig, Gemma3nTextModel

from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache, bytes_per_slot
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.weights import Weights
from gemma_model.weights.mapped_matrix import MappedMatrix
from gemma_model.weights.stored_tensor import StoredTensor


@pytest.fixture(scope="module")
def decoder() -> Gemma3nDecoder:
    config = Gemma3nConfig().text_config
    with torch.device("meta"):
        text = Gemma3nTextModel(config)
    stored = {
        key: StoredTensor.dense(partial(torch.clone, tensor)) for key, tensor in text.state_dict().items()
    }
    weights = Weights(stored, "meta", torch.bfloat16)
    decoder = Gemma3nDecoder(Gemma3nDecoderConfig.read(config.to_dict()), weights)
    weights.check_all_used()
    return decoder


def _tensors(thing: object) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, list | tuple):
        for item in thing:
            yield from _tensors(item)
    elif type(thing).__module__.startswith("gemma_model"):
        yield from _tensors(list(vars(thing).values()))


def test_with_towers_the_table_is_not_on_the_device(decoder: Gemma3nDecoder) -> None:
    config = Gemma3nConfig()
    with torch.device("meta"):
        towers = [AutoModel.from_config(part) for part in (config.vision_config, config.audio_config)]
    mapped = decoder.embed_tokens_per_layer.table
    assert isinstance(mapped, MappedMatrix)
    (table,) = mapped.parts
    storages = (t.untyped_storage() for t in _tensors(decoder) if t is not table)
    held = {storage._cdata: storage.nbytes() for storage in storages}  # views of one count once
    in_towers = sum(p.numel() * 2 for tower in towers for p in tower.parameters())
    assert table.numel() == 262_144 * 35 * 256
    assert 10e9 < sum(held.values()) + in_towers <= 11.1e9


def test_the_cache_takes_the_planned_memory(decoder: Gemma3nDecoder) -> None:
    cache = KVCache(decoder.config.cache_spec, 1, 32_768, device="meta", dtype=torch.bfloat16)
    planned = bytes_per_slot(decoder.config.cache_spec, 32_768, 0, itemsize=2)
    assert sum(layer.nbytes for layer in cache.layers) == planned == 272 * 2**20


def test_a_long_prompt_costs_little_more_than_its_storing_layers(decoder: Gemma3nDecoder) -> None:
    assert _operations(decoder, every_position=True) > 1.8 * _operations(decoder, every_position=False)


def _operations(decoder: Gemma3nDecoder, every_position: bool) -> int:
    """Of a prompt of 2,000 tokens, without the head: it would count once, or 2,000 times."""
    prompt, chunk, config = 2000, 1000, decoder.config
    cache = KVCache(config.cache_spec, 1, 4096, device="meta", dtype=torch.bfloat16)
    x = torch.empty(chunk, config.hidden_size, dtype=torch.bfloat16, device="meta")
    table_rows = x.new_empty(chunk, config.num_hidden_layers * config.hidden_size_per_layer_input)
    head = 2 * config.vocab_size * config.hidden_size
    total = 0
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        for start in range(0, prompt, chunk):
            keep = chunk if every_position else int(start + chunk == prompt)
            decoder(x, table_rows, [Batch([0], [start], chunk)], cache, keep)
            total -= keep * head
    return total + int(counter.get_total_flops())
