"""The decoder against transformers, and against itself in other pieces."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma3nForConditionalGeneration

from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.models.gemma3n.towers import Towers
from gemma_model.testing import tiny_tokenizer
from gemma_model.weights import open_weights

from ...encoding import encode_audio, encode_image

IMAGE, SOUND = (
    tiny_tokenizer.TEXT_VOCAB + 1,
    tiny_tokenizer.TEXT_VOCAB + tiny_tokenizer.MM_VOCAB + 1,
)  # ids of soft tokens
PROMPT = 50  # tokens; longer than every shape's window


def ids_of(count: int, seed: int = 0) -> Tensor:
    """Text, and now and then an id that only the towers embed (but none that stands for a soft token)."""
    ids = torch.randint(
        5,
        tiny_tokenizer.TEXT_VOCAB + 2 * tiny_tokenizer.MM_VOCAB,
        (count,),
        generator=torch.Generator().manual_seed(seed),
    )
    return ids.masked_fill(torch.isin(ids, torch.tensor([IMAGE, SOUND])), 7)


def assert_close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0.0, atol=1e-4)


def run(model: Any, cache: KVCache, ids: Tensor, batch: Batch, keep: int) -> Tensor:
    flat = ids.flatten()
    rows = model.decoder.embed_tokens_per_layer.rows(flat.tolist(), model.decoder.embed_tokens.weight)
    logits: Tensor = model.decoder(model.decoder.embed_tokens(flat), rows, [batch], cache, keep)
    return logits


def whole(model: Any, ids: Tensor) -> Tensor:
    return run(model, model.cache(), ids, Batch([0], [0], len(ids)), keep=len(ids))


def test_logits_equal_transformers(model: Any) -> None:
    ids = ids_of(PROMPT)
    expected = model.oracle(input_ids=ids.unsqueeze(0)).logits[0]
    assert_close(whole(model, ids), expected)


def test_an_image_in_the_prompt_equals_transformers(model: Any) -> None:
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    ids = ids_of(PROMPT)
    ids[10:26] = IMAGE
    expected = model.oracle(input_ids=ids.unsqueeze(0), pixel_values=pixels).logits[0]
    x = model.decoder.embed_tokens(ids)
    x[10:26] = encode_image(model.towers, pixels)[0]
    rows = model.decoder.embed_tokens_per_layer.rows(ids.tolist(), x)
    logits = model.decoder(x, rows, [Batch([0], [0], PROMPT)], model.cache(), PROMPT)
    assert_close(logits, expected)


def test_audio_becomes_the_same_tokens_as_in_transformers(model: Any) -> None:
    log_mel = torch.randn(70, 128, generator=torch.Generator().manual_seed(2))
    ids = torch.cat((ids_of(3), torch.full((188,), SOUND), ids_of(3)))
    everything_counts = torch.ones(1, 70, dtype=torch.bool)
    expected = model.oracle(
        input_ids=ids.unsqueeze(0), input_features=log_mel.unsqueeze(0), input_features_mask=everything_counts
    ).logits[0]
    x = model.decoder.embed_tokens(ids)
    x[3:191] = encode_audio(model.towers, log_mel.unsqueeze(0))[0]
    rows = model.decoder.embed_tokens_per_layer.rows(ids.tolist(), x)
    logits = model.decoder(x, rows, [Batch([0], [0], len(ids))], model.cache(length=256), len(ids))
    assert_close(logits, expected)


@pytest.mark.parametrize("chunk", [1, 3, 16, 49])
@pytest.mark.parametrize("extra_columns", [0, 4])
def test_chunked_prefill_equals_prefill_in_one_chunk(model: Any, chunk: int, extra_columns: int) -> None:
    ids, cache, pieces = ids_of(PROMPT), model.cache(extra_columns=extra_columns), []
    for start in range(0, PROMPT, chunk):
        piece = ids[start : start + chunk]
        pieces.append(run(model, cache, piece, Batch([0], [start], len(piece)), keep=len(piece)))
    assert_close(torch.cat(pieces), whole(model, ids))


def test_only_the_wanted_logits_are_computed_and_none_is_changed_by_that(model: Any) -> None:
    ids, cache = ids_of(PROMPT), model.cache()
    assert run(model, cache, ids[:30], Batch([0], [0], 30), keep=0) is None
    last = run(model, cache, ids[30:], Batch([0], [30], PROMPT - 30), keep=1)
    assert_close(last, whole(model, ids)[-1:])


@pytest.mark.parametrize("slots", [(1, 2, 3), (3, 0, 2)], ids=["neighbours", "scattered"])
def test_rows_at_different_positions_equal_each_alone(model: Any, slots: tuple[int, ...]) -> None:
    cache, lengths = model.cache(slots=5), (7, 40, 3)
    prompts = [ids_of(n + 6, seed=n) for n in lengths]
    for slot, prompt, length in zip(slots, prompts, lengths, strict=True):
        run(model, cache, prompt[:length], Batch([slot], [0], length), keep=0)
    for step in range(6):
        starts = [length + step for length in lengths]
        fed = torch.stack([prompt[start] for prompt, start in zip(prompts, starts, strict=True)])
        logits = run(model, cache, fed, Batch(slots, starts, 1), keep=1)
        for row, prompt, start in zip(logits, prompts, starts, strict=True):
            assert_close(row, whole(model, prompt)[start])


@pytest.mark.parametrize("keep", [0, 1])
def test_chunks_of_several_prompts_together_equal_each_alone(model: Any, keep: int) -> None:
    cache, prompts, starts = model.cache(slots=4), [ids_of(n, seed=n) for n in (50, 7, 31)], (20, 0, 30)
    run(model, cache, prompts[0][:20], Batch([3], [0], 20), keep=0)
    run(model, cache, prompts[2][:30], Batch([1], [0], 30), keep=0)
    chunks = [prompt[start:-1] for prompt, start in zip(prompts, starts, strict=True)]
    together = [chunk for chunk in chunks if len(chunk)]
    batches = [Batch([3], [20], 29), Batch([0], [0], 6)]
    flat = torch.cat(together)
    rows = model.decoder.embed_tokens_per_layer.rows(flat.tolist(), model.decoder.embed_tokens.weight)
    logits = model.decoder(model.decoder.embed_tokens(flat), rows, batches, cache, keep)
    if keep:
        assert_close(logits[0], whole(model, prompts[0])[-2])
        assert_close(logits[1], whole(model, prompts[1])[-2])
    else:
        assert logits is None
    last = torch.stack([prompt[-1] for prompt in prompts])
    logits = run(model, cache, last, Batch([3, 0, 1], [49, 6, 30], 1), keep=1)
    for row, prompt in zip(logits, prompts, strict=True):
        assert_close(row, whole(model, prompt)[-1])


def test_rows_of_several_tokens_equal_each_alone(model: Any) -> None:
    cache, prompts = model.cache(slots=2), [ids_of(30, seed=s) for s in (1, 2)]
    for slot, length in enumerate((4, 20)):
        run(model, cache, prompts[slot][:length], Batch([slot], [0], length), keep=0)
    fed = torch.stack((prompts[0][4:14], prompts[1][20:30]))
    logits = run(model, cache, fed, Batch([0, 1], [4, 20], 10), keep=10).view(2, 10, -1)
    assert_close(logits[0], whole(model, prompts[0])[4:14])
    assert_close(logits[1], whole(model, prompts[1])[20:30])


@pytest.mark.parametrize("extra_columns", [0, 9])
def test_tokens_can_be_removed_from_a_wrapped_ring_as_far_as_promised(model: Any, extra_columns: int) -> None:
    ids, cache = ids_of(PROMPT), model.cache(extra_columns=extra_columns)
    run(model, cache, ids[:40], Batch([0], [0], 40), keep=0)
    back = 40 - extra_columns - 1
    other = torch.cat((ids[:back], ids_of(10, seed=9)))
    logits = run(model, cache, other[back:], Batch([0], [back], 10), keep=10)
    assert_close(logits, whole(model, other)[back:])


def test_bf16_is_as_near_to_fp32_as_transformers_is(model: Any) -> None:
    """Rounding differs (and adds up in random weights), so each is measured against fp32."""
    ids, folder = ids_of(PROMPT), model.folder
    oracle = Gemma3nForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()
    weights = open_weights(folder, dtype=torch.bfloat16)
    towers = Towers(
        json.loads((folder / "config.json").read_text()), weights, torch.device("cpu"), torch.bfloat16
    )
    decoder = Gemma3nDecoder(model.config, weights)
    decoder.embed_tokens.set_hard_embeddings(*towers.hard_embeddings())
    cache = KVCache(model.config.cache_spec, 1, 64, dtype=torch.bfloat16)
    x = decoder.embed_tokens(ids)
    ours = decoder(
        x, decoder.embed_tokens_per_layer.rows(ids.tolist(), x), [Batch([0], [0], PROMPT)], cache, PROMPT
    )
    theirs, exact = oracle(input_ids=ids.unsqueeze(0)).logits[0].float(), whole(model, ids)
    assert ours is not None
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().mean() < 1.25 * (theirs - exact).abs().mean()


def test_contents_of_an_earlier_sequence_are_not_visible(model: Any) -> None:
    ids, cache = ids_of(20), model.cache()
    run(model, cache, ids_of(60, seed=5), Batch([0], [0], 60), keep=0)
    logits = run(model, cache, ids, Batch([0], [0], 20), keep=20)
    assert_close(logits, whole(model, ids))
