"""Infinity and NaN: who has them fails, nobody else does, and nothing of them stays in a slot."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.engine.loop import Loop
from gemma_model.engine.runner import Loaded, Runner
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine.slots import Slots
from gemma_model.engine.soft_tokens import Encoding, SoftTokens
from gemma_model.layers.kv_cache import KVCache
from gemma_model.protocol import Generation, Media, Prompt, Sampling
from gemma_model.settings import Settings

LENGTH, POISON = 256, 77
"""A token whose row of the per-layer table is NaN: it makes keys and values that are."""
GREEDY = Sampling(temperature=0.0)


def again(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    return step


@pytest.fixture(params=["kernels", "PyTorch", "static step"])
def engine(checkpoint: Any, request: pytest.FixtureRequest) -> Callable[..., tuple[Loop, KVCache]]:
    """Engines whose per-layer table is broken at one token."""
    compile_ = "auto" if request.param == "kernels" else "off"
    settings = Settings(device="cpu", max_num_seqs=1, max_model_len=LENGTH, compile=compile_)
    loaded = Loaded(checkpoint.folder, settings)
    decoder: Any = loaded.runner._decoder
    soft_tokens = loaded.runner._soft_tokens
    decoder.embed_tokens_per_layer.weight = decoder.embed_tokens_per_layer.weight.clone()
    decoder.embed_tokens_per_layer.weight[POISON] = torch.nan

    def make(slots: int = 1, soft_tokens: SoftTokens = soft_tokens) -> tuple[Loop, KVCache]:
        cache = KVCache(loaded.model.cache_spec, slots, LENGTH)
        runner = Runner(decoder, cache, soft_tokens)
        if request.param == "static step":
            runner.record(lambda: again, {"PyTorch": False})
        return Loop(runner, Scheduler(Slots(slots, loaded.window, cache.ring), 100, 16), LENGTH), cache

    return make


def said(checkpoint: Any, loop: Loop, *generations: Generation) -> list[Any]:
    answers = [checkpoint.answer() for _ in generations]
    for generation, answer in zip(generations, answers, strict=True):
        loop.submit(generation, answer)
    while loop.step():
        pass
    return answers


def finite(cache: KVCache) -> bool:
    return all(bool(layer.isfinite().all()) for layer in cache.layers)


def healthy(checkpoint: Any, length: int, seed: int) -> Generation:
    ids = [5 if token == POISON else token for token in checkpoint.text(length, seed).token_ids]
    return Generation(Prompt(tuple(ids)), GREEDY, 8)


@pytest.mark.parametrize("place", [0, 20, 59])  # in the first of four chunks, in the second, the last token
def test_a_prompt_that_gives_nan_fails_alone_and_leaves_nothing(
    checkpoint: Any, engine: Callable[..., tuple[Loop, KVCache]], place: int
) -> None:
    short = healthy(checkpoint, 5, 1)
    expected = said(checkpoint, engine()[0], short)[0].tokens
    assert len(expected) == 8
    ids = list(healthy(checkpoint, 60, 2).prompt.token_ids)
    ids[place] = POISON
    for slots in (1, 3):
        loop, cache = engine(slots)
        broken, beside = said(checkpoint, loop, Generation(Prompt(tuple(ids)), GREEDY, 8, n=slots), short)
        assert all("infinity or NaN" in broken.steps[i].error for i in range(slots))
        assert not broken.tokens
        assert beside.tokens == expected
        afterwards = said(checkpoint, loop, *[short] * 2 * slots)
        assert all(answer.tokens == expected for answer in afterwards)
        assert finite(cache)


def test_an_answer_that_becomes_nan_fails_alone_and_leaves_nothing(
    checkpoint: Any, engine: Callable[..., tuple[Loop, KVCache]]
) -> None:
    short = healthy(checkpoint, 5, 1)
    expected = said(checkpoint, engine()[0], short)[0].tokens
    loop, cache = engine(2)
    rules = Sampling(temperature=0.0, logit_bias={POISON: 1e4})
    broken, beside = said(checkpoint, loop, Generation(short.prompt, rules, 8), short)
    assert broken.tokens == [POISON]
    assert "infinity or NaN" in broken.steps[-1].error
    assert beside.tokens == expected
    assert all(answer.tokens == expected for answer in said(checkpoint, loop, short, short, short))
    assert finite(cache)


def test_a_cancelled_prompt_leaves_no_nan_either(
    checkpoint: Any, engine: Callable[..., tuple[Loop, KVCache]]
) -> None:
    short = healthy(checkpoint, 5, 1)
    expected = said(checkpoint, engine()[0], short)[0].tokens
    loop, cache = engine()
    answer = checkpoint.answer()
    number = loop.submit(Generation(Prompt((POISON, *checkpoint.text(60, 2).token_ids)), GREEDY, 8), answer)
    loop.step()
    loop.cancel(number)
    assert said(checkpoint, loop, short)[0].tokens == expected
    assert finite(cache)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_soft_tokens_that_are_not_finite_fail_their_own_request(
    checkpoint: Any, engine: Callable[..., tuple[Loop, KVCache]], value: float
) -> None:
    broken, fine = checkpoint.with_picture(25, 1), checkpoint.with_picture(25, 2)
    bad = broken.spans[0].media.digest
    encode = checkpoint.loaded.runner._soft_tokens._encode

    def encoded(media: Media) -> Encoding:
        tokens: Tensor = yield from encode(media)
        tokens[0, -1, -1] = value if media.digest == bad else tokens[0, -1, -1]
        return tokens

    expected = said(checkpoint, engine()[0], Generation(fine, GREEDY, 8))[0].tokens
    loop, cache = engine(3, SoftTokens(encoded, 10**9))
    first, second = said(checkpoint, loop, *(Generation(prompt, GREEDY, 8) for prompt in (broken, fine)))
    assert "infinity or NaN" in first.steps[0].error
    assert second.tokens == expected
    assert finite(cache)
