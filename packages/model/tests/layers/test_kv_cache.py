"""A cache whose layers differ from each other: heads, widths, windows, shared or not."""

import pytest
import torch

from gemma_model.layers.kv_cache import KVCache, bytes_per_slot
from gemma_model.layers.specs import LayerKVSpec

SPEC = (
    LayerKVSpec(num_kv_heads=2, head_dim=16, window=8),
    LayerKVSpec(num_kv_heads=1, head_dim=32),
    LayerKVSpec(num_kv_heads=4, head_dim=16, window=12),
    LayerKVSpec(num_kv_heads=1, head_dim=32, shared_with=1),
)


def test_each_layer_has_the_shape_of_its_specification() -> None:
    cache = KVCache(SPEC, slots=3, length=100, extra_columns=2)
    assert [tuple(layer.shape) for layer in cache.layers] == [(3, 4, 10, 16), (3, 2, 100, 32), (3, 8, 14, 16)]
    assert cache.layer(2) is cache.layers[2]
    assert cache.layer(3) is cache.layer(1) is cache.layers[1]


def test_the_smallest_window_limits_what_can_be_reused() -> None:
    cache = KVCache(SPEC, slots=1, length=100, extra_columns=2)
    assert (cache.window, cache.ring) == (8, 10)
    full = KVCache(SPEC[1:2], slots=1, length=100, extra_columns=2)
    assert (full.window, full.ring) == (100, 100)


@pytest.mark.parametrize("length", [5, 9, 100])
def test_a_slot_takes_the_bytes_that_are_planned(length: int) -> None:
    cache = KVCache(SPEC, slots=2, length=length, extra_columns=2, dtype=torch.bfloat16)
    assert sum(layer.nbytes for layer in cache.layers) == 2 * bytes_per_slot(SPEC, length, 2, itemsize=2)
