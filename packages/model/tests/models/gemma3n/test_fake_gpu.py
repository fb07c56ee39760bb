"""What can be known of a GPU without one: where every tensor is, and that a step can be captured."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from gemma_model.device import to_device
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.models.gemma3n.towers import Towers
from gemma_model.weights import Weights, open_weights

from ...encoding import encode_audio, encode_image
from ...fake_gpu import fake_gpu, watched
from ...weights.quantized import Bits, quantized_weights


class Gpu(NamedTuple):
    decoder: Gemma3nDecoder
    towers: Towers
    cache: KVCache


def weights_of(folder: Path, bits: Bits | None) -> Weights:
    if bits is None:
        return open_weights(folder, "cuda", torch.bfloat16)
    return quantized_weights(folder, bits, torch.bfloat16, cpu_kernels=False, device="cuda")


@pytest.fixture(
    params=[("as published", None), ("nothing shared", None), ("odd sizes", None), ("as published", 4)],
    ids=lambda param: f"{param[0]}, int{param[1]}" if param[1] else param[0],
)
def gpu(
    request: pytest.FixtureRequest, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Gpu]:
    shape, bits = request.param
    folder = folder_of(shape)
    config = json.loads((folder / "config.json").read_text())
    with fake_gpu(monkeypatch), watched("moves"):
        weights = weights_of(folder, bits)
        towers = Towers(config, weights, torch.device("cuda"), torch.bfloat16)
        decoder = Gemma3nDecoder(Gemma3nDecoderConfig.read(config), weights)
        decoder.embed_tokens.set_hard_embeddings(*towers.hard_embeddings())
        cache = KVCache(decoder.config.cache_spec, 6, 256, 0, "cuda", torch.bfloat16)
        yield Gpu(decoder, towers, cache)


@pytest.mark.parametrize(("rows", "columns"), [(1, 128), (4, 256)])
def test_a_recorded_step_never_touches_the_host(gpu: Gpu, rows: int, columns: int) -> None:
    step = gpu.decoder.cuda_graph_step(gpu.cache, rows, columns, compiled=False)
    with watched("moves without waiting"):
        step.fill([7], [3], [100])
    with watched("nothing"):
        logits = step.run()
    assert (logits.device.type, logits.shape[0]) == ("cuda", rows)


@pytest.mark.parametrize(
    ("slots", "starts", "tokens", "keep"),
    [([1], [0], 20, 0), ([1], [60], 20, 1), ([0, 1], [4, 70], 1, 1), ([3, 1], [4, 70], 1, 1)],
    ids=["first chunk", "last chunk", "neighbours", "scattered"],
)
def test_the_decoder_keeps_to_its_device_and_waits_for_nothing(
    gpu: Gpu, slots: Any, starts: Any, tokens: int, keep: int
) -> None:
    ids = [7] * len(slots) * tokens
    with watched("moves without waiting"):
        x = gpu.decoder.embed_tokens(to_device(torch.tensor(ids), torch.device("cuda")))
        rows = gpu.decoder.embed_tokens_per_layer.rows(ids, x)
        logits = gpu.decoder(x, rows, [Batch(slots, starts, tokens)], gpu.cache, keep)
    assert logits is None or logits.device.type == "cuda"


def test_the_towers_keep_to_their_device(gpu: Gpu) -> None:
    assert encode_image(gpu.towers, torch.zeros(2, 3, 64, 64)).device.type == "cuda"
    assert encode_audio(gpu.towers, torch.zeros(2, 70, 128)).device.type == "cuda"


@pytest.mark.parametrize("columns", [torch.tensor([1, 2]), torch.zeros(4, dtype=torch.bool)])
def test_the_watch_sees_what_it_should(monkeypatch: pytest.MonkeyPatch, columns: torch.Tensor) -> None:
    with fake_gpu(monkeypatch), pytest.raises(AssertionError), watched("moves"):
        torch.zeros(4, device="cuda")[columns] = 1
    with fake_gpu(monkeypatch), pytest.raises(AssertionError), watched("nothing"):
        torch.zeros(4).to("cuda")
    with fake_gpu(monkeypatch), pytest.raises(DataDependentOutputException), watched("moves"):
        bool(torch.zeros(4, device="cuda").any())
