"""The step for CUDA graphs against the decoder's own; that it can be captured is seen in test_fake_gpu.py."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.compiled_layers import compiled_layers
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.models.gemma3n.decoder_layer import Gemma3nDecoderLayer
from gemma_model.models.gemma3n.nested_models import NestedModel

SLOTS, LENGTH = 6, 128
IDS, SLOT, POSITION = [7, 90, 20, 530], [3, 0, 5, 1], [2, 61, 29, 0]  # slots in odd order, rings that wrapped


def noisy(model: Any, length: int = LENGTH, extra_columns: int = 0) -> KVCache:
    """A cache full of what other sequences left there."""
    cache: KVCache = model.cache(SLOTS, length, extra_columns)
    for number, layer in enumerate(cache.layers):
        layer.copy_(torch.randn(layer.shape, generator=torch.Generator().manual_seed(number)))
    return cache


def direct(decoder: Gemma3nDecoder, cache: KVCache, ids: Sequence[int], at: Sequence[int]) -> Tensor:
    x = decoder.embed_tokens(torch.tensor(ids))
    rows = decoder.embed_tokens_per_layer.rows(ids, x)
    logits = decoder(x, rows, [Batch(SLOT[: len(ids)], at, 1)], cache, 1)
    assert logits is not None
    return logits


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def turns(positions: Sequence[int], count: int = 5) -> Iterator[list[int]]:
    yield from ([position + turn for position in positions] for turn in range(count))


@pytest.mark.parametrize("real", [1, 3, 4])
@pytest.mark.parametrize(("columns", "extra_columns"), [(LENGTH, 0), (70, 0), (LENGTH, 9)])
def test_it_equals_the_decoder_for_each_row_and_does_not_change_other_slots(
    model: Any, real: int, columns: int, extra_columns: int
) -> None:
    expected, ours = (noisy(model, extra_columns=extra_columns) for _ in range(2))
    step = model.decoder.cuda_graph_step(ours, 4, columns, compiled=False)
    for at in turns(POSITION[:real]):
        wanted = direct(model.decoder, expected, IDS[:real], at)
        step.fill(IDS[:real], SLOT[:real], at)
        close(step.run()[:real], wanted)
    for one, other in zip(ours.layers, expected.layers, strict=True):
        close(one, other)


def test_columns_in_pieces_change_nothing(model: Any) -> None:
    expected, ours = (noisy(model, length=512) for _ in range(2))
    step, at = model.decoder.cuda_graph_step(ours, 2, 384, compiled=False), [383, 300]
    step.fill(IDS[:2], SLOT[:2], at)
    close(step.run(), direct(model.decoder, expected, IDS[:2], at))


def test_a_context_within_the_window_has_no_rings(model: Any) -> None:
    expected, ours = (noisy(model, length=5) for _ in range(2))
    step = model.decoder.cuda_graph_step(ours, 4, 5, compiled=False)
    step.fill(IDS, SLOT, [0, 4, 2, 3])
    close(step.run(), direct(model.decoder, expected, IDS, [0, 4, 2, 3]))


def test_the_static_step_of_a_nested_model_equals_its_decoder(model: Any) -> None:
    half = NestedModel(tuple(size // 2 for size in model.config.intermediate_size))
    if model.config.num_kv_shared_layers:
        half = NestedModel(half.intermediate_size[1:], (model.config.first_kv_shared_layer,))
    decoder, expected, ours = model.decoder.nested(half), noisy(model), noisy(model)
    step = decoder.cuda_graph_step(ours, 4, LENGTH, compiled=False)
    step.fill(IDS, SLOT, POSITION)
    close(step.run(), direct(decoder, expected, IDS, POSITION))


def test_each_kind_of_layer_is_traced_once(model: Any) -> None:
    """No part of it depends on what its tensors hold, so it can be compiled; here nothing is made of it."""
    counted: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        counted.append(len(graph.graph.nodes))
        return graph.forward

    torch.compiler.reset()
    config, through = model.config, compiled_layers(Gemma3nDecoderLayer.__call__, backend)
    kinds = {
        (config.layer_types[n], n < config.first_kv_shared_layer, config.activation_sparsity_pattern[n])
        for n in range(config.num_hidden_layers)
    }
    expected, ours = noisy(model), noisy(model)
    for rows in (4, 2):
        step = model.decoder.step_through(through, ours, rows, LENGTH)
        step.fill(IDS[:rows], SLOT[:rows], POSITION[:rows])
        close(step.run(), direct(model.decoder, expected, IDS[:rows], POSITION[:rows]))
    assert len(counted) == len(kinds), "the number of rows is no reason to compile again"
