"""The engine's steps on a GPU that computes nothing: every tensor is where it should be."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gemma_model.engine import cuda_graphs
from gemma_model.engine.cuda_graphs import GraphedStep
from gemma_model.engine.model_loader import LoadedRunner
from gemma_model.engine.model_runner import ModelRunner
from gemma_model.engine.request_state import encoder_inputs
from gemma_model.engine.step_plan import BlockCopy, Decode, Encode, Fork, Prefill, StepPlan, WaitingPrompt
from gemma_model.engine_types import EngineRequest, EngineSamplingParams
from gemma_model.layers.kv_block_pool import KVBlockPool
from gemma_model.models.gemma3n.nested_models import NestedModel
from gemma_model.sampling.logprobs import compute_logprobs
from gemma_model.sampling.sampler import SamplingRow, sample_rows
from gemma_model.sampling.sampling_state import SamplingState
from gemma_model.settings import Settings

from ..fake_gpu import fake_gpu, watched
from ..sampling.rows import counts_of, row
from .test_cuda_graphs import Again

VOCAB = 1000


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (2**40, 2**40))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "none")
    with fake_gpu(monkeypatch), watched("moves"):
        yield


@pytest.fixture
def folder(folder_of: Callable[[str], Path]) -> Path:
    return folder_of("as published")


@pytest.fixture
def runner(folder: Path, gpu: None) -> ModelRunner:
    settings = Settings(device="cuda", dtype="bfloat16", max_num_seqs=4, max_model_len=256, compile="off")
    return LoadedRunner(folder, settings).runner


WISHES: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "random": 0.5},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "random": 0.5},
    {"temperature": 1.0, "top_p": 0.9, "random": 0.5, "banned": {1, 2, 10**9}},
    {
        "token_counts": counts_of(np.array([1, 5]), np.array([1, 4], np.float32)),
        "repetition_penalty": 1.5,
        "frequency_penalty": 0.5,
        "presence_penalty": 1.0,
    },
    {"bias": (np.array([4, 900, 5000]), np.array([3.0, -3.0, 100.0], np.float32))},
    {"disallowed": None},
]


def draw(wish: dict[str, Any]) -> SamplingRow:
    masked = {"disallowed": torch.zeros(VOCAB, dtype=torch.bool)} if "disallowed" in wish else {}
    return row(**(wish | masked))


@pytest.mark.parametrize("wishes", [*([wish] for wish in WISHES), WISHES])
def test_the_sampler_keeps_to_the_device_of_its_logits(gpu: None, wishes: list[dict[str, Any]]) -> None:
    logits = torch.zeros(len(wishes), VOCAB, device="cuda")
    assert len(sample_rows(logits, [draw(wish) for wish in wishes])) == len(wishes)


def test_scores_keep_to_the_device_of_their_logits(gpu: None) -> None:
    assert len(compute_logprobs(torch.zeros(3, VOCAB, device="cuda"), [1, 2, 3], 5)) == 3


@pytest.mark.parametrize("way", ["eager", "graphs"])
def test_plans_run(checkpoint: Any, runner: ModelRunner, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture, a sound, a fork, scores of a prompt, and rows of two models, in slots out of order."""
    decoder: Any = runner._decoder
    config = decoder.config
    half = NestedModel(tuple(size // 2 for size in config.intermediate_size))
    pool, variants = KVBlockPool(runner._cache, 8, 4), {"small": decoder.nested(half)}
    runner = ModelRunner(runner._decoder, runner._cache, pool, runner._media_encoder, variants)
    if way == "graphs":
        monkeypatch.setattr(cuda_graphs, "float", lambda _: 0.0, raising=False)  # nothing can be compared
        runner.capture_graphs(Again, {"its own operations": False})
        assert isinstance(runner._steps["small"], GraphedStep)
    sound, _ = checkpoint.with_sound(200, seed=4, frames=90)
    prompts = [checkpoint.with_picture(40, 1), sound, checkpoint.text(20, 1)]
    rules = EngineSamplingParams(
        temperature=1.0, top_p=0.9, frequency_penalty=0.5, logit_bias={3: 1.0}, seed=1
    )
    asked = [
        EngineRequest(prompts[0], EngineSamplingParams(temperature=0, seed=0), 5, n=2),
        EngineRequest(prompts[1], rules, 5, variant="small"),
        EngineRequest(prompts[2], rules, 5, logprobs=3, prompt_logprobs=3),
    ]
    states = {(i, j): SamplingState(one, j) for i, one in enumerate(asked) for j in range(one.n)}
    prefills = (
        Prefill((0, 0), 3, 0, 40, True, True, (Fork((0, 1), 1),)),
        Prefill((1, 0), 0, 0, 100, False, True),
        Prefill((2, 0), 2, 0, 20, True, True),
    )
    for name in ((0, 0), (1, 0)):
        (medium,) = encoder_inputs(states[name].request)
        runner.retain({each.key for one in asked for each in encoder_inputs(one)})
        while medium.key not in runner.encoded:
            waits = Encode(medium.key, (WaitingPrompt((name,), 0),))
            assert not runner.run(StepPlan(encode=waits), states).failed
    first = runner.run(StepPlan(prefills), states)
    assert not first.failed
    assert len(first.tokens) == 3
    decodes = tuple(
        Decode(name, slot, 60, 1, 7, False) for name, slot in zip(states, (3, 1, 0, 2), strict=True)
    )
    saves, loads = (BlockCopy(3, 0, (2, 0, 5)),), (BlockCopy(2, 0, (2, 0, 5)),)
    second = runner.run(StepPlan((), decodes, saves=saves, loads=loads), states)
    assert not second.failed
    assert len(second.tokens) == 4
