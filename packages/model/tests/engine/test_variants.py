"""Nested models beside the whole one: the same tensors and slots, each its own text."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemma_model.checkpoint import read_config
from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.model_runner import ModelRunner
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine_types import EngineRequest, EngineSamplingParams, TokenizedPrompt
from gemma_model.layers.kv_block_pool import KVBlockPool
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.nested_models import PUBLISHED, NestedModel, served_nested_models
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest

from .counting import native_engine

LENGTH, SLOTS, BLOCKS = 128, 3, 256


def engine(checkpoint: Any, runner: ModelRunner, cache: KVCache) -> Any:
    prefix_cache = PrefixCache(BLOCKS, cache.ring, block_tokens=1)
    engine = native_engine(runner, Scheduler(KVSlots(SLOTS), prefix_cache, 100, 16), LENGTH)
    native = checkpoint.native()
    native.engine, native.recorder.runner = engine, runner
    return native


def cache_of(checkpoint: Any) -> KVCache:
    return KVCache(checkpoint.loaded.model.cache_spec, SLOTS, LENGTH)


def runner_of(checkpoint: Any, decoder: Any, variants: Any = None) -> ModelRunner:
    cache, media_encoder = cache_of(checkpoint), checkpoint.loaded.runner._media_encoder
    pool = KVBlockPool(cache, BLOCKS, block_tokens=1)
    return ModelRunner(decoder, cache, pool, media_encoder, variants or {})


def nested_of(checkpoint: Any) -> NestedModel:
    """Half the neurons, and one layer less."""
    config = checkpoint.loaded.model.config
    first, sizes = config.first_kv_shared_layer, tuple(size // 2 for size in config.intermediate_size)
    return NestedModel(sizes[1:], (first,))


def ask(prompt: TokenizedPrompt, variant: str | None, new: int = 12) -> EngineRequest:
    return EngineRequest(prompt, EngineSamplingParams(temperature=0), new, variant=variant)


def test_each_request_gets_the_text_of_its_own_model(checkpoint: Any) -> None:
    of, nested = checkpoint.loaded.runner, nested_of(checkpoint)
    alone = runner_of(checkpoint, of._decoder.nested(nested))
    both = runner_of(checkpoint, of._decoder, {"small": of._decoder.nested(nested)})
    prompts = [checkpoint.text(20 + i, seed=i) for i in range(6)]
    wholes = checkpoint.native().answers([ask(prompt, None) for prompt in prompts])
    smalls = engine(checkpoint, alone, alone._cache).answers([ask(prompt, None) for prompt in prompts])
    assert wholes != smalls
    mixed = engine(checkpoint, both, both._cache)
    wanted = [ask(prompt, variant) for prompt in prompts for variant in ("small", None)]
    expected = [tokens for pair in zip(smalls, wholes, strict=True) for tokens in pair]
    assert mixed.answers(wanted) == expected


def test_one_model_never_reuses_what_the_other_has_stored(checkpoint: Any) -> None:
    of = checkpoint.loaded.runner
    both = runner_of(checkpoint, of._decoder, {"small": of._decoder.nested(nested_of(checkpoint))})
    mixed, prompt = engine(checkpoint, both, both._cache), checkpoint.text(20, seed=1)

    def cached(variant: str | None) -> int:
        (answer,) = mixed.listened(ask(prompt, variant))
        assert answer.end is not None
        tokens: int = answer.end.cached_tokens
        return tokens

    assert [cached(variant) for variant in (None, "small", None, "small")] == [0, 0, 19, 19]


@pytest.fixture
def e4b(tmp_path: Path) -> Path:
    """As much of E4B as tells what it holds."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3n_text"}))
    return tmp_path


def served(folder: Path, variants: str, name: str = "google/gemma-3n-E4B-it") -> dict[str, NestedModel]:
    return served_nested_models(read_config(folder), Settings(model_name=name, variants=variants))


def test_e4b_contains_e2b_under_its_own_name(e4b: Path) -> None:
    assert served(e4b, "auto") == {"google/gemma-3n-E2B-it": PUBLISHED["E2B"]}
    assert served(e4b, "auto", "mine") == {"mine-E2B": PUBLISHED["E2B"]}
    assert list(served(e4b, "E1.96B, E2.54B")) == ["google/gemma-3n-E1.96B-it", "google/gemma-3n-E2.54B-it"]
    assert served(e4b, "none") == {}
    reference = Settings(model_name="m", engine="reference")
    assert served_nested_models(read_config(e4b), reference) == {}


def test_other_slices_come_from_a_file(e4b: Path) -> None:
    file = e4b / "slices.json"
    file.write_text(json.dumps({"thin": {"intermediate_size": [2048] * 34, "skipped": [20]}}))
    assert served(e4b, str(file), "m") == {"m-thin": NestedModel((2048,) * 34, (20,))}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read"),
        ("[]", "cannot read"),
        ('{"thin": {}}', "cannot read"),
        ('{"thin": {"intermediate_size": [1]}}', "1 sizes for the 35 remaining layers"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(e4b: Path, content: str | None, says: str) -> None:
    file = e4b / "slices.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidRequest, match=says):
        served(e4b, str(file))


def test_an_unknown_name_is_refused_with_the_known_ones(e4b: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"no nested model 'E9B'; use E2B, E1\.96B, E2\.54B"):
        served(e4b, "E9B")
