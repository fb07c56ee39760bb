"""Copies between slots and the blocks of the prefix cache."""

import pytest
import torch

from gemma_model.layers.kv_block_pool import KVBlockPool, block_bytes
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.specs import LayerKVSpec

BLOCK, WINDOW, LENGTH = 4, 6, 64
SPEC = (LayerKVSpec(1, 8), LayerKVSpec(2, 4, WINDOW), LayerKVSpec(2, 4, WINDOW, shared_with=1))


def written(cache: KVCache, slot: int, stop: int) -> None:
    """Each position has numbers of its own in each layer."""
    for position in range(stop):
        for number, layer in enumerate(cache.layers):
            layer[slot, :, position % layer.shape[2]] = 100 * number + position + torch.rand(layer.shape[3])


@pytest.mark.parametrize("start", [0, 4, 20])
@pytest.mark.parametrize("blocks", [[5], [7, 0], [3, 9, 1, 2]])
def test_a_loaded_prefix_equals_the_saved_one_as_far_as_a_token_sees(start: int, blocks: list[int]) -> None:
    cache = KVCache(SPEC, slots=2, length=LENGTH, extra_columns=16)
    pool, stop = KVBlockPool(cache, 10, BLOCK), start + BLOCK * len(blocks)
    written(cache, 0, stop)
    pool.save(0, start, blocks)
    pool.load(1, start, blocks)
    full, ring = cache.layers
    assert torch.equal(full[1, :, start:stop], full[0, :, start:stop])
    assert not full[1, :, :start].any()
    assert not full[1, :, stop:].any()
    seen = torch.arange(max(start, stop - WINDOW + 1), stop) % ring.shape[2]
    assert torch.equal(ring[1][:, seen], ring[0][:, seen])
    others = [column for column in range(ring.shape[2]) if column not in seen.tolist()]
    assert not ring[1][:, others].any()


def test_other_blocks_and_slots_do_not_change() -> None:
    cache = KVCache(SPEC, slots=3, length=LENGTH, extra_columns=16)
    pool = KVBlockPool(cache, 3, BLOCK)
    for slot in range(3):
        written(cache, slot, 12)
    pool.save(0, 0, [0, 1, 2])
    pool.save(1, 4, [1])
    before = [layer.clone() for layer in cache.layers]
    pool.load(2, 0, [0, 1, 2])
    full = cache.layers[0]
    assert torch.equal(full[2, :, 4:8], before[0][1, :, 4:8])
    assert torch.equal(full[2, :, 8:12], before[0][0, :, 8:12])
    assert all(torch.equal(old[:2], new[:2]) for old, new in zip(before, cache.layers, strict=True))


def test_the_size_of_a_block() -> None:
    cache = KVCache(SPEC, slots=1, length=LENGTH, dtype=torch.bfloat16)
    pool = KVBlockPool(cache, 3, BLOCK)
    assert 3 * block_bytes(cache, BLOCK) == sum(layer.nbytes for layer in pool._layers)
