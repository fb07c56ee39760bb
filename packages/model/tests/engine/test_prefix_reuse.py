"""Text and log probabilities with the prefix cache equal those of a new run, bit for bit (CPU kernels)."""

import random
from dataclasses import replace
from typing import Any

import pytest

from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.model_runner import ModelRunner
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine_types import EngineRequest, EngineSamplingParams, Media, TokenizedPrompt
from gemma_model.layers.kv_block_pool import KVBlockPool
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.nested_models import NestedModel

from .conftest import LENGTH, Native
from .counting import native_engine

NEW = 10


def nested(checkpoint: Any) -> Any:
    config = checkpoint.loaded.model.config
    sizes = tuple(size // 2 for size in config.intermediate_size)
    return checkpoint.loaded.runner._decoder.nested(NestedModel(sizes))


def server(checkpoint: Any, blocks: int, tokens: int, slots: int = 4, chunk: int = 16) -> Native:
    """An engine of the complete and of a nested model."""
    cache, of = (
        KVCache(checkpoint.loaded.model.cache_spec, slots, LENGTH, extra_columns=chunk),
        checkpoint.loaded.runner,
    )
    pool, variants = KVBlockPool(cache, blocks, tokens), {"small": nested(checkpoint)}
    runner: Any = ModelRunner(of._decoder, cache, pool, of._media_encoder, variants)
    scheduler = Scheduler(KVSlots(slots), PrefixCache(blocks, cache.ring, tokens), 10_000, chunk)
    return Native(native_engine(runner, scheduler, LENGTH), runner, KVSlots(slots))


def prompts_of_a_tree(checkpoint: Any) -> list[TokenizedPrompt]:
    """Prompts that begin alike: two images, three texts after each, and after these several more."""
    images: list[Media] = [checkpoint.picture(1), checkpoint.picture(2)]
    found: list[TokenizedPrompt] = []
    for number in range(24):
        whole = checkpoint.with_picture(90, 7, images[number % 2])
        ends = ((40, number % 3), (15 + number, number % 5))
        prompt = whole
        for length, seed in ends:
            more = checkpoint.text(length, 50 + seed).token_ids
            kept = len(prompt.token_ids) if prompt is whole else 90 + 3 * length // 2
            prompt = replace(prompt, token_ids=(*prompt.token_ids[:kept], *more))
        found.append(prompt)
    return found


@pytest.mark.parametrize(("blocks", "tokens"), [(400, 4), (60, 4), (100, 16), (7, 16)])
def test_any_order_of_requests_and_cancellations_changes_nothing(
    checkpoint: Any, blocks: int, tokens: int
) -> None:
    dice = random.Random(blocks)
    pool = [_request(prompt, seed) for seed, prompt in enumerate(prompts_of_a_tree(checkpoint))]
    fresh = [server(checkpoint, 0, 1).listened(request)[0] for request in pool]
    tested, asked, doomed = server(checkpoint, blocks, tokens), [], list[int]()
    for _ in range(120):
        which, answer = dice.randrange(len(pool)), checkpoint.answer()
        number = tested.engine.submit(pool[which], answer)
        asked.append((which, answer))
        doomed += [number] if dice.random() < 0.15 else []
        for _ in range(dice.choice([0, 0, 1, 3, 12])):
            tested.engine.step()
        if doomed and dice.random() < 0.3:
            tested.engine.cancel(doomed.pop())
    tested.run()
    hits = 0
    for which, answer in asked:
        said, scores, wanted = answer.tokens, answer.scores(), fresh[which]
        complete = answer.end.finish == "length"
        assert said == (wanted.tokens if complete else wanted.tokens[: len(said)])
        assert scores == wanted.scores()[: len(said)]
        hits += answer.steps[0].cached_tokens
    assert hits > 120 * 20 or blocks == 7
    info = tested.engine.info()
    assert (info.running, info.waiting, info.slots_used, info.cache_tokens_used) == (0, 0, 0, 0)
    assert 0 < info.prefix_cache_tokens_used <= blocks * tokens


def _request(prompt: TokenizedPrompt, seed: int) -> EngineRequest:
    sampling = EngineSamplingParams(temperature=1.5, seed=seed, frequency_penalty=0.1 * (seed % 2))
    salt = (None, "one", "other")[seed % 3] if seed % 4 == 0 else None
    variant = "small" if seed % 5 == 0 else None
    return EngineRequest(prompt, sampling, NEW, logprobs=2, variant=variant, cache_salt=salt)


def test_after_an_edited_message_the_rest_is_reused(checkpoint: Any) -> None:
    """Further back than the rings of the sliding layers reach."""
    native, prompt = checkpoint.native(block_tokens=4), checkpoint.text(300, 4)
    native.answers([_request(prompt, 1)])
    edited = replace(prompt, token_ids=(*prompt.token_ids[:120], *checkpoint.text(30, 9).token_ids))
    (answer,) = native.listened(_request(edited, 2))
    assert answer.steps[0].cached_tokens == 120
    (fresh,) = checkpoint.native(blocks=0).listened(_request(edited, 2))
    assert (answer.tokens, answer.scores()) == (fresh.tokens, fresh.scores())


def test_salts_and_models_never_share(checkpoint: Any) -> None:
    tested, prompt = server(checkpoint, 400, 4), checkpoint.text(60, 4)
    kinds: list[dict[str, Any]] = [{}, {"variant": "small"}, {"cache_salt": "one"}, {"cache_salt": "other"}]
    for expected in (0, 56):
        for kind in kinds:
            request = EngineRequest(prompt, EngineSamplingParams(temperature=0), 3, **kind)
            assert tested.listened(request)[0].steps[0].cached_tokens == expected


def test_prompts_of_one_moment_run_their_common_prefix_once(checkpoint: Any) -> None:
    native, system = checkpoint.native(slots=16, block_tokens=4), checkpoint.text(200, 4)
    asked = [
        _request(replace(system, token_ids=(*system.token_ids, *checkpoint.text(9, 30 + i).token_ids)), i)
        for i in range(1, 4)
    ]
    answers = native.listened(*asked)
    assert [native.recorder.tokens_run(number) for number in range(3)] == [209, 9, 9]
    for request, answer in zip(asked, answers, strict=True):
        (fresh,) = checkpoint.native(blocks=0).listened(request)
        assert (answer.tokens, answer.scores()) == (fresh.tokens, fresh.scores())
