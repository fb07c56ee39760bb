"""The decoder against transformers, and against itself in other pieces."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3.decoder import Gemma3Decoder
from gemma_model.testing.tiny_tokenizer import TEXT_VOCAB

from .conftest import load

PROMPT = 50  # tokens; longer than every shape's window


def ids_of(count: int, seed: int = 0) -> Tensor:
    return torch.randint(5, TEXT_VOCAB, (count,), generator=torch.Generator().manual_seed(seed))


def assert_close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0.0, atol=1e-4)


def run(decoder: Gemma3Decoder, cache: KVCache, ids: Tensor, batches: list[Batch], keep: int) -> Tensor:
    flat = ids.flatten().tolist()
    logits = decoder.prefill(flat, decoder.embed(flat), batches, cache, keep)
    assert (logits is None) == (keep == 0)
    return ids.new_empty(0) if logits is None else logits


def whole(model: Any, ids: Tensor, decoder: Gemma3Decoder | None = None) -> Tensor:
    decoder = decoder or model.decoder
    cache = KVCache(model.config.cache_spec, 1, 128, dtype=decoder.dtype)
    return run(decoder, cache, ids, [Batch([0], [0], len(ids))], keep=len(ids))


@pytest.mark.parametrize("count", [1, 2, 16, 17, PROMPT, 128])
def test_logits_equal_transformers(model: Any, count: int) -> None:
    ids = ids_of(count)
    assert_close(whole(model, ids), model.oracle(input_ids=ids.unsqueeze(0)).logits[0])


@pytest.mark.usefixtures("cpu_kernels")
def test_logits_of_the_cpu_kernels_equal_transformers(model: Any) -> None:
    ids, (_, decoder) = ids_of(PROMPT), load(model.folder, cpu_kernels=True)
    assert_close(whole(model, ids, decoder), model.oracle(input_ids=ids.unsqueeze(0)).logits[0])


@pytest.mark.parametrize("chunk", [1, 3, 16, 49])
@pytest.mark.parametrize("extra_columns", [0, 4])
def test_chunked_prefill_equals_prefill_in_one_chunk(model: Any, chunk: int, extra_columns: int) -> None:
    ids, cache, pieces = ids_of(PROMPT), model.cache(extra_columns=extra_columns), []
    for start in range(0, PROMPT, chunk):
        piece = ids[start : start + chunk]
        batch = Batch([0], [start], len(piece))
        pieces.append(run(model.decoder, cache, piece, [batch], keep=len(piece)))
    assert_close(torch.cat(pieces), whole(model, ids))


def test_only_the_wanted_logits_are_computed_and_none_is_changed_by_that(model: Any) -> None:
    ids, cache = ids_of(PROMPT), model.cache()
    run(model.decoder, cache, ids[:30], [Batch([0], [0], 30)], keep=0)
    last = run(model.decoder, cache, ids[30:], [Batch([0], [30], PROMPT - 30)], keep=3)
    assert_close(last, whole(model, ids)[-3:])


@pytest.mark.parametrize("slots", [(1, 2, 3), (3, 0, 2)], ids=["neighbours", "scattered"])
def test_rows_at_different_positions_equal_each_alone(model: Any, slots: tuple[int, ...]) -> None:
    cache, lengths = model.cache(slots=5), (7, 40, 3)
    prompts = [ids_of(n + 6, seed=n) for n in lengths]
    for slot, prompt, length in zip(slots, prompts, lengths, strict=True):
        run(model.decoder, cache, prompt[:length], [Batch([slot], [0], length)], keep=0)
    for step in range(6):
        starts = [length + step for length in lengths]
        fed = [int(prompt[start]) for prompt, start in zip(prompts, starts, strict=True)]
        logits = model.decoder.decode(fed, slots, starts, cache)
        for row, prompt, start in zip(logits, prompts, starts, strict=True):
            assert_close(row, whole(model, prompt)[start])


def test_chunks_of_several_prompts_together_equal_each_alone(model: Any) -> None:
    cache, first, second = model.cache(slots=4), ids_of(PROMPT, seed=1), ids_of(7, seed=2)
    run(model.decoder, cache, first[:20], [Batch([3], [0], 20)], keep=0)
    batches = [Batch([3], [20], PROMPT - 20), Batch([0], [0], 7)]
    logits = run(model.decoder, cache, torch.cat((first[20:], second)), batches, keep=1)
    assert_close(logits[0], whole(model, first)[-1])
    assert_close(logits[1], whole(model, second)[-1])


@pytest.mark.parametrize("extra_columns", [0, 9])
def test_tokens_can_be_removed_from_a_wrapped_ring_as_far_as_promised(model: Any, extra_columns: int) -> None:
    """So another prompt with the same beginning can continue from the cache."""
    ids, cache, back = ids_of(PROMPT), model.cache(extra_columns=extra_columns), 40 - extra_columns - 1
    run(model.decoder, cache, ids[:40], [Batch([0], [0], 40)], keep=0)
    other = torch.cat((ids[:back], ids_of(10, seed=9)))
    logits = run(model.decoder, cache, other[back:], [Batch([0], [back], 10)], keep=10)
    assert_close(logits, whole(model, other)[back:])


def test_contents_of_an_earlier_sequence_are_not_visible(model: Any) -> None:
    ids, cache = ids_of(20), model.cache()
    run(model.decoder, cache, ids_of(60, seed=5), [Batch([0], [0], 60)], keep=0)
    assert_close(run(model.decoder, cache, ids, [Batch([0], [0], 20)], keep=20), whole(model, ids))


@pytest.mark.parametrize("fast", [False, True])
def test_bf16_is_as_near_to_fp32_as_transformers_is(
    model: Any, fast: bool, request: pytest.FixtureRequest
) -> None:
    """Rounding differs (and adds up in random weights), so each is measured against fp32."""
    if fast:
        request.getfixturevalue("cpu_kernels")
    ids, (_, decoder) = ids_of(PROMPT), load(model.folder, torch.bfloat16, cpu_kernels=fast)
    oracle = type(model.oracle).from_pretrained(model.folder, dtype=torch.bfloat16).eval()
    ours, theirs = whole(model, ids, decoder), oracle(input_ids=ids.unsqueeze(0)).logits[0].float()
    exact = whole(model, ids)
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().mean() < 1.25 * (theirs - exact).abs().mean()
