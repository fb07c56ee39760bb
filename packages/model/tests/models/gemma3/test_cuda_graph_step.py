"""The step for CUDA graphs against the decoder's own, and what can be known of a GPU without one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.compiled_layers import compiled_layers
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3.decoder_layer import Gemma3DecoderLayer

from ...fake_gpu import fake_gpu, watched
from .conftest import SHAPES, load

SLOTS, LENGTH = 6, 128
IDS, SLOT, POSITION = [7, 90, 20, 530], [3, 0, 5, 1], [2, 61, 29, 0]  # slots in odd order, rings that wrapped


def noisy(model: Any, length: int = LENGTH, extra_columns: int = 0) -> KVCache:
    """A cache full of what other sequences left there."""
    cache: KVCache = model.cache(SLOTS, length, extra_columns)
    for number, layer in enumerate(cache.layers):
        layer.copy_(torch.randn(layer.shape, generator=torch.Generator().manual_seed(number)))
    return cache


def close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("real", [1, 3, 4])
@pytest.mark.parametrize(("columns", "extra_columns"), [(LENGTH, 0), (70, 0), (LENGTH, 9)])
def test_it_equals_the_decoder_for_each_row_and_does_not_change_other_slots(
    model: Any, real: int, columns: int, extra_columns: int
) -> None:
    expected, ours = (noisy(model, extra_columns=extra_columns) for _ in range(2))
    step = model.decoder.cuda_graph_step(ours, 4, columns, compiled=False)
    for turn in range(5):
        at = [position + turn for position in POSITION[:real]]
        wanted = model.decoder.decode(IDS[:real], SLOT[:real], at, expected)
        step.fill(IDS[:real], SLOT[:real], at)
        close(step.run()[:real], wanted)
    for one, other in zip(ours.layers, expected.layers, strict=True):
        close(one, other)


def test_each_kind_of_layer_is_traced_once(model: Any) -> None:
    counted: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        counted.append(len(graph.graph.nodes))
        return graph.forward

    torch.compiler.reset()
    through = compiled_layers(Gemma3DecoderLayer.__call__, backend)
    expected, ours = noisy(model), noisy(model)
    for rows in (4, 2):
        step = model.decoder.step_through(through, ours, rows, LENGTH)
        step.fill(IDS[:rows], SLOT[:rows], POSITION[:rows])
        close(step.run(), model.decoder.decode(IDS[:rows], SLOT[:rows], POSITION[:rows], expected))
    assert len(counted) == 2, "sliding and full; the number of rows is no reason to compile again"


@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_gpu_no_step_touches_the_host(
    shape: str, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(shape)
    with fake_gpu(monkeypatch), watched("moves"):
        config, decoder = load(folder, torch.bfloat16, device="cuda")
        cache = KVCache(config.cache_spec, SLOTS, 256, 0, "cuda", torch.bfloat16)
        step = decoder.cuda_graph_step(cache, 4, 256, compiled=False)
    with fake_gpu(monkeypatch), watched("moves without waiting"):
        step.fill([7], [3], [100])
        for batch, keep in ((Batch([1], [0], 20), 0), (Batch([3, 1], [4, 70], 1), 1)):
            ids = [7] * len(batch.slots) * batch.tokens
            logits = decoder.prefill(ids, decoder.embed(ids), [batch], cache, keep)
            assert logits is None or logits.device.type == "cuda"
    with fake_gpu(monkeypatch), watched("nothing"):
        logits = step.run()
    assert (logits.device.type, logits.shape[0]) == ("cuda", 4)
