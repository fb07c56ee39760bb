"""The fused layers compared with the definition in PyTorch, and rows compared with each other bit for bit."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.cpu_layers import supports
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.models.gemma3n.nested_models import NestedModel
from gemma_model.weights import open_weights

from ...weights.quantized import Bits, quantized_weights

pytestmark = pytest.mark.usefixtures("cpu_kernels")
SLOTS, LENGTH = 4, 96


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights_of(model: Any, dtype: torch.dtype, cpu_kernels: bool, bits: Bits | None = None) -> Gemma3nDecoder:
    if bits is None:
        weights = open_weights(model.folder, "cpu", dtype, cpu_kernels)
    else:
        weights = quantized_weights(model.folder, bits, dtype, cpu_kernels=cpu_kernels)
    decoder = Gemma3nDecoder(model.config, weights)
    offset, hard = model.towers.hard_embeddings()
    decoder.embed_tokens.set_hard_embeddings(offset, hard.to(dtype))
    return decoder


def step(
    decoder: Gemma3nDecoder, cache: Any, slots: list[int], positions: list[int], ids: list[int]
) -> Tensor:
    return decoder.decode(ids, slots, positions, cache)


def cache_of(model: Any, dtype: torch.dtype, extra_columns: int = 0) -> KVCache:
    cache = KVCache(model.config.cache_spec, SLOTS, LENGTH, extra_columns, "cpu", dtype)
    for number, layer in enumerate(cache.layers):
        layer.copy_(random(*layer.shape, seed=number))
    return cache


def logits_of_steps(model: Any, decoder: Gemma3nDecoder, dtype: torch.dtype) -> Iterator[Tensor]:
    """Logits of three rows for some steps, in slots out of order, across the end of every ring."""
    cache, positions = cache_of(model, dtype), [2, 40, 29]
    for turn in range(12):
        yield step(decoder, cache, [3, 0, 2], positions, [7 + turn, 90 - turn, 20])
        positions = [position + 1 for position in positions]


def test_decoding_equals_the_definition_in_pytorch(model: Any) -> None:
    plain, fast = (weights_of(model, torch.float32, compiled) for compiled in (False, True))
    assert supports(model.config)
    pairs = zip(
        logits_of_steps(model, plain, torch.float32), logits_of_steps(model, fast, torch.float32), strict=True
    )
    for expected, ours in pairs:
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("length", [3, 40, 70])
def test_a_prompt_equals_the_definition_in_pytorch(model: Any, length: int, sliced: bool) -> None:
    half = NestedModel(tuple(size // 2 for size in model.config.intermediate_size))
    logits = []
    for compiled in (False, True):
        decoder = weights_of(model, torch.float32, compiled)
        decoder, cache = decoder.nested(half) if sliced else decoder, cache_of(model, torch.float32)
        for start in (0, length):  # the second chunk looks back at the first
            ids = list(range(start + 5, start + 5 + length))
            logits.append(decoder.prefill(ids, decoder.embed(ids), [Batch([2], [start], length)], cache, 1))
    for expected, ours in zip(logits[:2], logits[2:], strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


def test_decoding_a_slice_equals_the_definition_in_pytorch(model: Any) -> None:
    half = NestedModel(tuple(size // 2 for size in model.config.intermediate_size))
    plain, fast = (weights_of(model, torch.float32, compiled).nested(half) for compiled in (False, True))
    for expected, ours in zip(
        logits_of_steps(model, plain, torch.float32), logits_of_steps(model, fast, torch.float32), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


@pytest.fixture(params=[None, 4, 8], ids=["bf16", "int4", "int8"])
def decoder(model: Any, request: pytest.FixtureRequest) -> Gemma3nDecoder:
    """With the kernels, of dense and of quantised weights."""
    return weights_of(model, torch.bfloat16, cpu_kernels=True, bits=request.param)


def test_a_batch_row_is_bit_for_bit_the_same_as_alone(model: Any, decoder: Gemma3nDecoder) -> None:
    slots, positions, ids = [0, 1, 2, 3], [50, 60, 5, 33], [7, 8, 9, 10]
    together = step(decoder, cache_of(model, torch.bfloat16), slots, positions, ids)
    for row in range(SLOTS):
        alone = step(decoder, cache_of(model, torch.bfloat16), [slots[row]], [positions[row]], [ids[row]])
        assert torch.equal(alone[0], together[row])


def prompt(decoder: Gemma3nDecoder, cache: Any, batches: list[Batch], keep: int) -> Tensor:
    ids = [7 + i for batch in batches for i in range(batch.tokens)]
    logits = decoder.prefill(ids, decoder.embed(ids), batches, cache, keep)
    assert logits is not None
    return logits


@pytest.mark.parametrize(
    "extra_columns", [0, 30]
)  # without, a prompt overwrites what its first tokens still see
@pytest.mark.parametrize("start", [0, 11, 60])
def test_a_prompt_is_bit_for_bit_its_tokens_one_after_the_other(
    model: Any, decoder: Gemma3nDecoder, start: int, extra_columns: int
) -> None:
    length = 30
    whole, stepwise = (cache_of(model, torch.bfloat16, extra_columns) for _ in range(2))
    logits = prompt(decoder, whole, [Batch([2], [start], length)], length)
    for number, together in enumerate(logits):
        assert torch.equal(step(decoder, stepwise, [2], [start + number], [7 + number])[0], together)
    for ours, theirs in zip(whole.layers, stepwise.layers, strict=True):
        assert torch.equal(ours, theirs)


def test_only_keys_and_values_are_computed_for_all_tokens(model: Any, decoder: Gemma3nDecoder) -> None:
    batch = Batch([2], [60], 30)
    caches = [cache_of(model, torch.bfloat16) for _ in range(3)]
    wanted = prompt(decoder, caches[0], [batch], 30)[-1:]
    assert torch.equal(prompt(decoder, caches[1], [batch], 1), wanted)
    ids = range(7, 37)
    assert decoder.prefill(ids, decoder.embed(ids), [batch], caches[2], 0) is None
    for first, *others in zip(*(cache.layers for cache in caches), strict=True):
        assert all(torch.equal(first, other) for other in others)


def test_prompts_together_are_bit_for_bit_each_alone(model: Any, decoder: Gemma3nDecoder) -> None:
    batches = [Batch([3], [0], 20), Batch([0], [40], 1), Batch([1], [7], 30)]
    together = prompt(decoder, cache_of(model, torch.bfloat16, 30), batches, 1)
    for batch, row in zip(batches, together, strict=True):
        assert torch.equal(prompt(decoder, cache_of(model, torch.bfloat16, 30), [batch], 1)[0], row)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("sliced", [False, True])
def test_quantised_layers_equal_the_definition_in_pytorch(model: Any, bits: Bits, sliced: bool) -> None:
    """Up to the rounding of inputs to int8, which the definition does not have."""
    half = NestedModel(tuple(size // 2 for size in model.config.intermediate_size))
    plain, fast = (weights_of(model, torch.float32, compiled, bits) for compiled in (False, True))
    if sliced:
        plain, fast = plain.nested(half), fast.nested(half)
    pairs = zip(
        logits_of_steps(model, plain, torch.float32), logits_of_steps(model, fast, torch.float32), strict=True
    )
    similar = torch.stack([torch.cosine_similarity(ours, expected, dim=-1) for expected, ours in pairs])
    assert similar.min() > 0.95, similar
    assert similar.mean() > 0.99, similar
