"""The engine as others see it: with its thread, from a folder."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from gemma_model.engine.engine import NativeEngine
from gemma_model.engine.model_loader import start_engine
from gemma_model.engine_types import EngineOutput, EngineRequest, EngineSamplingParams
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest, Overloaded, Unavailable

PATIENCE = 60  # seconds, for a machine that has other things to do


class Heard:
    """A listener that can be waited for."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.last: EngineOutput | None = None
        self.begun, self.ended = threading.Event(), threading.Event()

    def __call__(self, step: EngineOutput) -> None:
        self.tokens += step.token_ids
        self.begun.set()
        if step.last:
            self.last = step
            self.ended.set()


def greedy(checkpoint: Any, seed: int, max_tokens: int) -> EngineRequest:
    return EngineRequest(checkpoint.text(10, seed), EngineSamplingParams(temperature=0.0), max_tokens)


@pytest.fixture
def engine(checkpoint: Any) -> Iterator[NativeEngine]:
    settings = Settings(device="cpu", max_num_seqs=2, max_queue=1, max_model_len=512, prefill_chunk=16)
    before = set(threading.enumerate())
    engine = start_engine(checkpoint.folder, settings)
    yield engine
    engine.close()
    assert set(threading.enumerate()) <= before


def test_describe_reports_the_model(engine: NativeEngine, checkpoint: Any) -> None:
    info = engine.info()
    assert (info.name, info.device, info.dtype, info.max_num_seqs) == (
        "native",
        f"cpu ({torch.get_num_threads()} threads)",
        "float32",
        2,
    )
    assert 0 < info.memory_bytes <= (checkpoint.folder / "model.safetensors").stat().st_size
    assert (info.running, info.waiting) == (0, 0)


def test_requests_from_several_threads(engine: NativeEngine, checkpoint: Any) -> None:
    expected = [checkpoint.native().answers([greedy(checkpoint, seed, 10)])[0] for seed in range(3)]
    heard = [Heard() for _ in expected]
    threads = [
        threading.Thread(target=engine.submit, args=(greedy(checkpoint, seed, 10), heard[seed]))
        for seed in range(3)
    ]
    for thread in threads:
        thread.start()
    assert all(one.ended.wait(PATIENCE) for one in heard)
    assert [one.tokens for one in heard] == expected
    for thread in threads:
        thread.join()


def test_a_cancelled_request_frees_its_slot(engine: NativeEngine, checkpoint: Any) -> None:
    heard = Heard()
    number = engine.submit(greedy(checkpoint, 1, 500), heard)
    assert heard.begun.wait(PATIENCE)
    engine.cancel(number)
    assert heard.ended.wait(PATIENCE)
    assert heard.last is not None
    assert heard.last.finish == "cancelled"
    assert len(heard.tokens) < 500
    assert engine.info().running == 0


class Anything:
    """A constraint that allows every token."""

    def allowed(self) -> npt.NDArray[np.int32]:
        return np.full(100, -1, np.int32)

    def advance(self, token_id: int) -> None:
        pass

    def fork(self) -> "Anything":
        return self


def test_what_it_has_done_can_be_read(engine: NativeEngine, checkpoint: Any) -> None:
    heard = Heard()
    engine.submit(replace(greedy(checkpoint, 1, 5), constraint=Anything()), heard)
    assert heard.ended.wait(PATIENCE)
    assert heard.last is not None
    assert heard.last.timings is not None
    info = engine.info()
    assert (info.slots_used, info.cache_tokens, info.cache_tokens_used) == (0, 2 * 512, 0)
    assert (info.totals.prompt_tokens, info.totals.generated_tokens) == (10, 5)
    assert info.totals.finished == {"length": 1}
    kinds = [observation.kind for observation in engine.observations()]
    assert kinds == ["queue", "prefill", "first_token", *["inter_token"] * 4, "decode"]


def test_a_full_pool_refuses_requests(engine: NativeEngine, checkpoint: Any) -> None:
    heard = [Heard() for _ in range(3)]
    numbers = [engine.submit(greedy(checkpoint, seed, 500), heard[seed]) for seed in range(3)]
    with pytest.raises(Overloaded):
        engine.submit(greedy(checkpoint, 3, 5), Heard())
    for number in numbers:
        engine.cancel(number)
    assert all(one.ended.wait(PATIENCE) for one in heard)


def test_close_cancels_running_requests_and_refuses_new_ones(engine: NativeEngine, checkpoint: Any) -> None:
    heard = [Heard() for _ in range(3)]
    for seed, one in enumerate(heard):
        engine.submit(greedy(checkpoint, seed, 500), one)
    engine.close()
    assert [one.last and one.last.finish for one in heard] == ["cancelled"] * 3
    with pytest.raises(Unavailable):
        engine.submit(greedy(checkpoint, 3, 5), Heard())


def test_too_large_a_cache_is_one_clear_error(checkpoint: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"These would fit: max_num_seqs=\d+ "):
        start_engine(checkpoint.folder, Settings(device="cpu", max_num_seqs=10**7))


def test_a_context_beyond_the_checkpoints_own_is_refused(checkpoint: Any) -> None:
    with pytest.raises(InvalidRequest, match="4096"):
        start_engine(checkpoint.folder, Settings(device="cpu", max_model_len=5000))


def test_a_failed_engine_ends_all_requests_with_an_error(
    engine: NativeEngine, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(encoded: object) -> None:
        raise ArithmeticError("impossible")

    monkeypatch.setattr(engine._scheduler, "plan", broken)
    heard = Heard()
    engine.submit(greedy(checkpoint, 1, 5), heard)
    assert heard.ended.wait(PATIENCE)
    assert heard.last is not None
    assert heard.last.error == "ArithmeticError: impossible"
    assert engine.thread is not None
    engine.thread.join(PATIENCE)
    assert engine.info().failure == "ArithmeticError: impossible"
    with pytest.raises(Unavailable):
        engine.submit(greedy(checkpoint, 1, 5), Heard())
