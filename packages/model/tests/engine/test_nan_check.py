"""Infinity and NaN: who has them fails, nobody else does, and nothing of them stays in a slot."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.engine.drafts.draft_source import Draft
from gemma_model.engine.drafts.speculation import Speculation
from gemma_model.engine.engine import NativeEngine
from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.media_encoder import Encoding, MediaEncoder
from gemma_model.engine.model_loader import LoadedRunner
from gemma_model.engine.model_runner import ModelRunner
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine_types import DraftKind, EngineRequest, EngineSamplingParams, Media, TokenizedPrompt
from gemma_model.layers.kv_block_pool import KVBlockPool
from gemma_model.layers.kv_cache import KVCache
from gemma_model.settings import Settings

from .counting import native_engine
from .test_speculation import FreeRows

LENGTH, POISON = 256, 77
"""A token whose row of the per-layer table is NaN: it makes keys and values that are."""
DRAFT = 3
GREEDY = EngineSamplingParams(temperature=0.0)


def again(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    return step


@pytest.fixture(params=["kernels", "PyTorch", "static step"])
def engine(checkpoint: Any, request: pytest.FixtureRequest) -> Callable[..., tuple[NativeEngine, KVCache]]:
    """Engines whose per-layer table is broken at one token."""
    compile_ = "auto" if request.param == "kernels" else "off"
    settings = Settings(device="cpu", max_num_seqs=1, max_model_len=LENGTH, compile=compile_)
    loaded = LoadedRunner(checkpoint.folder, settings)
    decoder: Any = loaded.runner._decoder
    soft_tokens = loaded.runner._media_encoder
    table = decoder.embed_tokens_per_layer.table
    table.parts = tuple(part.clone() for part in table.parts)
    table.parts[0][POISON] = torch.nan

    def make(slots: int = 1, soft_tokens: MediaEncoder = soft_tokens) -> tuple[NativeEngine, KVCache]:
        cache = KVCache(loaded.model.cache_spec, slots, LENGTH, extra_columns=DRAFT)
        runner = ModelRunner(decoder, cache, KVBlockPool(cache, 128, 4), soft_tokens)
        if request.param == "static step":
            runner.capture_graphs(lambda: again, {"PyTorch": False})
        scheduler = Scheduler(KVSlots(slots), PrefixCache(128, cache.window, 4), 100, 16)
        return native_engine(runner, scheduler, LENGTH), cache

    return make


def said(checkpoint: Any, native: NativeEngine, *requests: EngineRequest) -> list[Any]:
    answers = [checkpoint.answer() for _ in requests]
    for engine_request, answer in zip(requests, answers, strict=True):
        native.submit(engine_request, answer)
    while native.step():
        pass
    return answers


def finite(cache: KVCache) -> bool:
    return all(bool(layer.isfinite().all()) for layer in cache.layers)


def healthy(checkpoint: Any, length: int, seed: int) -> EngineRequest:
    ids = [5 if token == POISON else token for token in checkpoint.text(length, seed).token_ids]
    return EngineRequest(TokenizedPrompt(tuple(ids)), GREEDY, 8)


@pytest.mark.parametrize("place", [0, 20, 59])  # in the first of four chunks, in the second, the last token
def test_a_prompt_with_nan_fails_alone_and_leaves_nothing(
    checkpoint: Any, engine: Callable[..., tuple[NativeEngine, KVCache]], place: int
) -> None:
    short = healthy(checkpoint, 5, 1)
    expected = said(checkpoint, engine()[0], short)[0].tokens
    assert len(expected) == 8
    ids = list(healthy(checkpoint, 60, 2).prompt.token_ids)
    ids[place] = POISON
    for slots in (1, 3):
        native, cache = engine(slots)
        broken, beside = said(
            checkpoint, native, EngineRequest(TokenizedPrompt(tuple(ids)), GREEDY, 8, n=slots), short
        )
        assert all("infinity or NaN" in broken.steps[i].error for i in range(slots))
        assert not broken.tokens
        assert beside.tokens == expected
        afterwards = said(checkpoint, native, *[short] * 2 * slots)
        assert all(answer.tokens == expected for answer in afterwards)
        assert finite(cache)


def test_a_response_that_becomes_nan_fails_alone_and_leaves_nothing(
    checkpoint: Any, engine: Callable[..., tuple[NativeEngine, KVCache]]
) -> None:
    short = healthy(checkpoint, 5, 1)
    expected = said(checkpoint, engine()[0], short)[0].tokens
    native, cache = engine(2)
    rules = EngineSamplingParams(temperature=0.0, logit_bias={POISON: 100.0})
    broken, beside = said(checkpoint, native, EngineRequest(short.prompt, rules, 8), short)
    assert broken.tokens == [POISON]
    assert "infinity or NaN" in broken.steps[-1].error
    assert beside.tokens == expected
    assert all(answer.tokens == expected for answer in said(checkpoint, native, short, short, short))
    assert finite(cache)


class WrongDrafts:
    """Drafts the token that makes NaN, first or after others."""

    kind: DraftKind = "ngram"

    def __init__(self) -> None:
        self.done = 0

    def append(self, token_id: int) -> None:
        self.done += 1

    def propose(self, limit: int) -> Draft:
        return Draft([*[9] * (self.done % 3), POISON, 9][:limit])


def test_a_wrong_draft_with_nan_does_no_harm(
    checkpoint: Any, engine: Callable[..., tuple[NativeEngine, KVCache]]
) -> None:
    short, other = healthy(checkpoint, 5, 1), healthy(checkpoint, 30, 2)
    expected = [answer.tokens for answer in said(checkpoint, engine(2)[0], short, other)]
    native, cache = engine(2)
    native._speculation = Speculation(DRAFT, make_sources=lambda state: [WrongDrafts()])
    native._speculation._cost = FreeRows()
    assert [answer.tokens for answer in said(checkpoint, native, short, other)] == expected
    assert native.info().totals.drafted["ngram"] > 10
    assert finite(cache)


def test_a_cancelled_prompt_leaves_no_nan(
    checkpoint: Any, engine: Callable[..., tuple[NativeEngine, KVCache]]
) -> None:
    short = healthy(checkpoint, 5, 1)
    expected = said(checkpoint, engine()[0], short)[0].tokens
    native, cache = engine()
    answer = checkpoint.answer()
    number = native.submit(
        EngineRequest(TokenizedPrompt((POISON, *checkpoint.text(60, 2).token_ids)), GREEDY, 8), answer
    )
    native.step()
    native.cancel(number)
    assert said(checkpoint, native, short)[0].tokens == expected
    assert finite(cache)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_soft_tokens_that_are_not_finite_fail_their_own_request(
    checkpoint: Any, engine: Callable[..., tuple[NativeEngine, KVCache]], value: float
) -> None:
    broken, fine = checkpoint.with_picture(25, 1), checkpoint.with_picture(25, 2)
    bad = broken.spans[0].media.digest
    encode = checkpoint.loaded.runner._media_encoder._encode

    def encoded(media: Media) -> Encoding:
        tokens: Tensor = yield from encode(media)
        tokens[0, -1, -1] = value if media.digest == bad else tokens[0, -1, -1]
        return tokens

    expected = said(checkpoint, engine()[0], EngineRequest(fine, GREEDY, 8))[0].tokens
    native, cache = engine(3, MediaEncoder(encoded, 10**9))
    first, second = said(checkpoint, native, *(EngineRequest(prompt, GREEDY, 8) for prompt in (broken, fine)))
    assert "infinity or NaN" in first.steps[0].error
    assert second.tokens == expected
    assert finite(cache)
