"""Steps that are recorded and replayed, with a stand-in for CUDA graphs: it runs the step again."""

import logging
import random
from collections.abc import Callable
from copy import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.engine import decoding
from gemma_model.engine.decoding import Direct, Recorded, buckets
from gemma_model.engine.runner import Runner
from gemma_model.layers.attention_metadata import attention_bias
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.decoder_layer import DecoderLayer
from gemma_model.models.gemma3n.nested_models import NestedModel
from gemma_model.models.gemma3n.static_step import StaticStep
from gemma_model.protocol import Generation, Prompt, Sampling

Replay = Callable[[], Tensor]
SLOTS, NEW = 6, 40
PLAIN = {"its own operations": False}


class Again:
    """Like a graph: every replay writes into the same memory."""

    def __call__(self, step: Replay) -> Replay:
        kept = step()
        return lambda: kept.copy_(step())


class Broken(Again):
    def __call__(self, step: Replay) -> Replay:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")


class Wrong(Again):
    def __call__(self, step: Replay) -> Replay:
        kept = step().zero_()
        return lambda: kept


class Small(Again):
    """Has no room for the largest."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: Replay) -> Replay:
        self.calls += 1
        if self.calls == 1:
            raise torch.OutOfMemoryError
        return super().__call__(step)


@pytest.fixture(autouse=True)
def few_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "FEWEST_COLUMNS", 16)  # so that answers outgrow them


def greedy(prompt: Prompt, variant: str | None = None, new: int = NEW) -> Generation:
    return Generation(prompt, Sampling(temperature=0), new, variant=variant)


def recorded(native: Any) -> Any:
    runner: Runner = native.recorder.runner
    runner.record(Again, PLAIN)
    assert all(isinstance(step, Recorded) for step in runner._steps.values())
    assert not any(layer.any() for layer in runner._cache.layers), "what it was tried with is gone"
    return native


def test_buckets_reach_exactly_to_the_largest() -> None:
    assert buckets(16, 1, 2) == [1, 2, 4, 8, 16]
    assert buckets(12, 1, 2) == [1, 2, 4, 8, 12]
    assert buckets(1, 1, 2) == [1]
    assert buckets(300, 512, 4) == [300]
    assert buckets(32_768, 512, 4) == [512, 2048, 8192, 32_768]


def test_text_is_that_of_the_decoder_while_requests_come_and_go(each_checkpoint: Any) -> None:
    """Every number of rows and of columns, in slots in any order, across the end of every ring."""
    dice, native = random.Random(3), recorded(each_checkpoint.native(slots=SLOTS))
    asked = [
        greedy(each_checkpoint.text(dice.randint(1, 60), seed), new=dice.randint(1, NEW))
        for seed in range(24)
    ]
    answers, stray = [each_checkpoint.answer() for _ in asked], []
    for generation, answer in zip(asked, answers, strict=True):
        native.loop.submit(generation, answer)
        if dice.random() < 0.3:
            stray.append(native.loop.submit(greedy(each_checkpoint.text(9, 99)), each_checkpoint.answer()))
        for _ in range(dice.randrange(12)):
            native.loop.step()
        if stray and dice.random() < 0.5:
            native.loop.cancel(stray.pop())
    native.run()
    alone = each_checkpoint.native(slots=1)
    assert [answer.tokens for answer in answers] == [alone.answers([one])[0] for one in asked]


def test_sampled_text_is_that_of_the_decoder(checkpoint: Any) -> None:
    asked = [
        Generation(checkpoint.text(9, seed), Sampling(1.0, top_p=0.9, seed=seed), 20, n=1 + seed % 3)
        for seed in range(6)
    ]
    ours = recorded(checkpoint.native(slots=SLOTS)).listened(*asked)
    wanted = checkpoint.native(slots=SLOTS).listened(*asked)
    for one, other, generation in zip(ours, wanted, asked, strict=True):
        assert [one.choice(i) for i in range(generation.n)] == [other.choice(i) for i in range(generation.n)]


def test_nested_models_keep_their_own_logits(checkpoint: Any) -> None:
    """One step of each in a step of the engine: the second must not write over what the first said."""
    config, of = checkpoint.loaded.model.config, checkpoint.loaded.runner
    half = NestedModel(tuple(size // 2 for size in config.intermediate_size))
    asked = [greedy(checkpoint.text(5 + seed, seed), ("small", None)[seed % 2]) for seed in range(SLOTS)]
    said = []
    for replayed in (True, False):
        native = checkpoint.native(slots=SLOTS)
        cache = native.recorder.runner._cache
        native.recorder.runner = Runner(
            of._decoder, cache, of._soft_tokens, {"small": of._decoder.nested(half)}
        )
        said.append((recorded(native) if replayed else native).answers(asked))
    assert said[0] == said[1]


@pytest.mark.parametrize(("capture", "says"), [(Broken, "not permitted"), (Wrong, "off the decoder's")])
def test_what_does_not_work_is_not_used_and_told_in_a_sentence(
    checkpoint: Any, capture: type[Again], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    native, asked = checkpoint.native(), [greedy(checkpoint.text(9, 1))]
    runner = native.recorder.runner
    with caplog.at_level(logging.WARNING):
        runner.record(capture, {"compiled layers": False, **PLAIN})
    first, second, last = (record.getMessage() for record in caplog.records)
    assert "compiled layers" in first
    assert "its own operations" in second
    assert says in first
    assert "\n" not in first
    assert "without recorded steps" in last
    assert all(isinstance(step, Direct) for step in runner._steps.values())
    assert native.answers(asked) == checkpoint.native().answers(asked)


def test_what_is_too_large_is_run_as_it_is(checkpoint: Any, caplog: pytest.LogCaptureFixture) -> None:
    native = checkpoint.native(slots=2)
    asked = [greedy(checkpoint.text(length, 1), new=6) for length in (300, 290, 5, 9)]
    with caplog.at_level(logging.WARNING):
        native.recorder.runner.record(Small, PLAIN)
    step = native.recorder.runner._steps[None]
    assert isinstance(step, Recorded)
    assert (2, 512) not in step._steps
    assert [record.getMessage() for record in caplog.records] == [
        "step 1 of 8: 2 rows, 512 columns: too large for the memory there is, so it is not recorded"
    ]
    assert native.answers(asked) == checkpoint.native(slots=1).answers(asked)


def test_layers_that_compute_something_else_are_found_out(checkpoint: Any) -> None:
    def shifted(layer: DecoderLayer, streams: Tensor, *rest: Any) -> Any:
        streams, seen = layer(streams, *rest)
        return streams + 0.1, seen

    with torch.inference_mode():
        decoder = checkpoint.loaded.runner._decoder
        cache, other = KVCache(decoder.cache_spec, 2, 64), copy(decoder)
        other.static_step = lambda cache, rows, columns, _: StaticStep(decoder, cache, rows, columns, shifted)
        with pytest.raises(ValueError, match="off the decoder's logits"):
            Recorded(Direct(other, cache), Again(), compiled=False)


def test_a_step_that_reads_one_column_too_few_is_found_out(
    checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def narrow(queries: Tensor, keys: Tensor, window: int, like: Tensor) -> Tensor:
        return attention_bias(queries, keys, window - 1, like)

    monkeypatch.setattr("gemma_model.layers.static_attention.attention_bias", narrow)
    native = checkpoint.native()
    native.recorder.runner.record(Again, PLAIN)
    assert isinstance(native.recorder.runner._steps[None], Direct)
