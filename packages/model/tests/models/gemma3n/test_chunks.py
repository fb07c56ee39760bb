"""Prompts on the CPU's kernels, bit for bit: in any chunks, beside any others, on any number of threads."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.weights import open_weights

pytestmark = pytest.mark.usefixtures("cpu_kernels")
SLOTS = 4
Chunks = list[tuple[int, tuple[int, ...]]]


def decoder_of(model: Any, dtype: torch.dtype) -> Gemma3nDecoder:
    decoder = Gemma3nDecoder(model.config, open_weights(model.folder, "cpu", dtype, cpu_kernels=True))
    offset, hard = model.towers.hard_embeddings()
    decoder.embed_tokens.set_hard_embeddings(offset, hard.to(dtype))
    assert decoder.fused_layers is not None
    return decoder


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_prompt_is_bit_for_bit_the_same_in_any_chunks_and_batch(
    model: Any, dtype: torch.dtype, threads: int
) -> None:
    """What products, sums and angles of many rows at once say is what those of few say."""
    decoder, length, usual = decoder_of(model, dtype), 700, torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        wanted = in_chunks(model, decoder, dtype, [(length, ())])
        alone: Chunks = [(1, ()), (128, ()), (129, ()), (442, ())]
        among: Chunks = [(300, (512, 3, 90)), (400, (129,))]
        for chunks in (alone, among):
            given = in_chunks(model, decoder, dtype, chunks)
            assert all(torch.equal(*pair) for pair in zip(given, wanted, strict=True))
    finally:
        torch.set_num_threads(usual)


def in_chunks(model: Any, decoder: Gemma3nDecoder, dtype: torch.dtype, chunks: Chunks) -> list[Tensor]:
    """Logits behind a prompt, and its keys and values.

    Args:
        chunks: the tokens of each, and the lengths of other prompts in its step.
    """
    cache, start = KVCache(model.config.cache_spec, SLOTS, 1024, 0, "cpu", dtype), 0
    for tokens, others in chunks:
        batches = [Batch([1 + at], [0], other) for at, other in enumerate(others)]
        place = len(batches) // 2
        batches.insert(place, Batch([0], [start], tokens))
        ids = [[5 + (b.starts[0] + i) * 7 % 90 + bool(b.slots[0]) for i in range(b.tokens)] for b in batches]
        flat = [token for each in ids for token in each]
        logits = decoder.prefill(flat, decoder.embed(flat), batches, cache, 1)
        assert logits is not None
        start += tokens
    assert logits is not None
    return [logits[place], *(layer[0] for layer in cache.layers)]
