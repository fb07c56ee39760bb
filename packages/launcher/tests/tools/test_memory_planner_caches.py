"""The planner's sizes of the KV cache and the prefix cache, compared with the engine's."""

import json
import re
from pathlib import Path

import pytest

from gemma_launcher.__main__ import main
from gemma_launcher.tools.memory_planner import planner
from gemma_launcher.tools.memory_planner.kv_cache_size import PREFILL_CHUNK, kv_slot_bytes
from gemma_launcher.tools.memory_planner.model_shape import ModelShape


@pytest.mark.parametrize("chunk", [0, 5])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 4096])
def test_slot_size_matches_the_engines_kv_cache(tiny: Path, length: int, chunk: int) -> None:
    from gemma_model.layers.kv_cache import KVCache, bytes_per_slot  # noqa: PLC0415
    from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig  # noqa: PLC0415

    config = json.loads((tiny / "config.json").read_text())
    text = Gemma3nDecoderConfig.read(config)
    ours = kv_slot_bytes(ModelShape.read(config).text_config, length, 4, chunk)
    assert ours == bytes_per_slot(text.cache_spec, length, chunk, 4)
    assert ours == sum(layer.nbytes for layer in KVCache(text.cache_spec, 1, length, chunk).layers)


def test_the_rings_hold_a_window_and_a_chunk(capsys: pytest.CaptureFixture[str]) -> None:
    from gemma_model.settings import Settings  # noqa: PLC0415

    assert Settings().prefill_chunk == PREFILL_CHUNK
    assert main(["plan", "--memory", "24GiB", "--context", "32768"]) == 0
    report = capsys.readouterr().out
    assert "at most 32 MiB in 16 sliding-window layers" in report
    assert "288 MiB at 32,768 tokens" in report


def test_the_prefix_cache_is_planned_as_the_engine_sizes_it(capsys: pytest.CaptureFixture[str]) -> None:
    from gemma_model.engine import kv_cache_memory  # noqa: PLC0415

    assert planner.PREFIX_CACHE_SHARE == kv_cache_memory.PREFIX_CACHE_SHARE
    assert main(["plan", "--memory", "24GiB", "--context", "32768", "--slots", "4"]) == 0
    report = capsys.readouterr().out
    found = re.search(r"prefix cache, at most +([\d.]+) GiB\n.*headroom.* ([\d.]+) GiB", report)
    assert found
    assert float(found[2]) == pytest.approx(3 * float(found[1]), abs=0.04)
