"""Captured steps, with a stand-in for CUDA graphs that runs the step again."""

import logging
import random
from collections.abc import Callable
from copy import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.engine import cuda_graphs
from gemma_model.engine.cuda_graphs import EagerStep, GraphedStep, buckets
from gemma_model.engine.model_runner import ModelRunner
from gemma_model.engine_types import EngineRequest, EngineSamplingParams, TokenizedPrompt
from gemma_model.layers.attention_metadata import attention_bias
from gemma_model.layers.kv_block_pool import KVBlockPool
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.decoder_layer import Gemma3nDecoderLayer
from gemma_model.models.gemma3n.nested_models import NestedModel

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
    monkeypatch.setattr(cuda_graphs, "MIN_COLUMNS", 16)  # so that answers outgrow them


def greedy(prompt: TokenizedPrompt, variant: str | None = None, new: int = NEW) -> EngineRequest:
    return EngineRequest(prompt, EngineSamplingParams(temperature=0), new, variant=variant)


def graphed(native: Any) -> Any:
    runner: ModelRunner = native.recorder.runner
    runner.capture_graphs(Again, PLAIN)
    assert all(isinstance(step, GraphedStep) for step in runner._steps.values())
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
    dice, native = random.Random(3), graphed(each_checkpoint.native(slots=SLOTS))
    asked = [
        greedy(each_checkpoint.text(dice.randint(1, 60), seed), new=dice.randint(1, NEW))
        for seed in range(24)
    ]
    answers, stray = [each_checkpoint.answer() for _ in asked], []
    for engine_request, answer in zip(asked, answers, strict=True):
        native.engine.submit(engine_request, answer)
        if dice.random() < 0.3:
            stray.append(native.engine.submit(greedy(each_checkpoint.text(9, 99)), each_checkpoint.answer()))
        for _ in range(dice.randrange(12)):
            native.engine.step()
        if stray and dice.random() < 0.5:
            native.engine.cancel(stray.pop())
    native.run()
    alone = each_checkpoint.native(slots=1)
    assert [answer.tokens for answer in answers] == [alone.answers([one])[0] for one in asked]


def test_sampled_text_is_that_of_the_decoder(checkpoint: Any) -> None:
    asked = [
        EngineRequest(
            checkpoint.text(9, seed),
            EngineSamplingParams(temperature=1.0, top_p=0.9, seed=seed),
            20,
            n=1 + seed % 3,
        )
        for seed in range(6)
    ]
    ours = graphed(checkpoint.native(slots=SLOTS)).listened(*asked)
    wanted = checkpoint.native(slots=SLOTS).listened(*asked)
    for one, other, engine_request in zip(ours, wanted, asked, strict=True):
        assert [one.choice(i) for i in range(engine_request.n)] == [
            other.choice(i) for i in range(engine_request.n)
        ]


def test_nested_models_keep_their_own_logits(checkpoint: Any) -> None:
    """One step of each in a step of the engine: the second must not write over what the first said."""
    config, of = checkpoint.loaded.model.config, checkpoint.loaded.runner
    half = NestedModel(tuple(size // 2 for size in config.intermediate_size))
    asked = [greedy(checkpoint.text(5 + seed, seed), ("small", None)[seed % 2]) for seed in range(SLOTS)]
    said = []
    for replayed in (True, False):
        native = checkpoint.native(slots=SLOTS, blocks=64, block_tokens=4)
        cache = native.recorder.runner._cache
        pool, variants = KVBlockPool(cache, 64, 4), {"small": of._decoder.nested(half)}
        native.recorder.runner = ModelRunner(of._decoder, cache, pool, of._media_encoder, variants)
        said.append((graphed(native) if replayed else native).answers(asked))
    assert said[0] == said[1]


@pytest.mark.parametrize(("capture", "says"), [(Broken, "not permitted"), (Wrong, "off the decoder's")])
def test_graphs_that_fail_are_not_used_and_logged(
    checkpoint: Any, capture: type[Again], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    native, asked = checkpoint.native(), [greedy(checkpoint.text(9, 1))]
    runner = native.recorder.runner
    with caplog.at_level(logging.WARNING):
        runner.capture_graphs(capture, {"compiled layers": False, **PLAIN})
    first, second, last = (record.getMessage() for record in caplog.records)
    assert "compiled layers" in first
    assert "its own operations" in second
    assert says in first
    assert "\n" not in first
    assert "without graphs" in last
    assert all(isinstance(step, EagerStep) for step in runner._steps.values())
    assert native.answers(asked) == checkpoint.native().answers(asked)


def test_steps_too_large_for_a_graph_run_eagerly(checkpoint: Any, caplog: pytest.LogCaptureFixture) -> None:
    native = checkpoint.native(slots=2)
    asked = [greedy(checkpoint.text(length, 1), new=6) for length in (300, 290, 5, 9)]
    with caplog.at_level(logging.WARNING):
        native.recorder.runner.capture_graphs(Small, PLAIN)
    step = native.recorder.runner._steps[None]
    assert isinstance(step, GraphedStep)
    assert (2, 512) not in step._graphs
    assert [record.getMessage() for record in caplog.records] == [
        "step 1 of 8: 2 rows, 512 columns: does not fit the memory, so it is not captured"
    ]
    assert native.answers(asked) == checkpoint.native(slots=1).answers(asked)


def test_layers_that_compute_something_else_are_found_out(checkpoint: Any) -> None:
    def shifted(layer: Gemma3nDecoderLayer, streams: Tensor, *rest: Any) -> Any:
        streams, seen = layer(streams, *rest)
        return streams + 0.1, seen

    with torch.inference_mode():
        decoder = checkpoint.loaded.runner._decoder
        cache, other = KVCache(decoder.cache_spec, 2, 64), copy(decoder)
        other.cuda_graph_step = lambda cache, rows, columns, _: decoder.step_through(
            shifted, cache, rows, columns
        )
        with pytest.raises(ValueError, match="off the decoder's logits"):
            GraphedStep(EagerStep(other, cache), Again(), compiled=False)


def test_a_step_that_reads_one_column_too_few_is_found_out(
    checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def narrow(queries: Tensor, token_keys: Tensor, window: int, like: Tensor) -> Tensor:
        return attention_bias(queries, token_keys, window - 1, like)

    monkeypatch.setattr("gemma_model.layers.cuda_graph_attention.attention_bias", narrow)
    native = checkpoint.native()
    native.recorder.runner.capture_graphs(Again, PLAIN)
    assert isinstance(native.recorder.runner._steps[None], EagerStep)
