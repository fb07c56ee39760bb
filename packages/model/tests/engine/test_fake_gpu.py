"""The engine's steps on a GPU that computes nothing: every tensor is where it should be."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gemma_model.engine import decoding
from gemma_model.engine.choice import Choice
from gemma_model.engine.decoding import Recorded
from gemma_model.engine.encoder_inputs import encoder_inputs
from gemma_model.engine.plan import Decode, Encode, Fork, Plan, Prefill, Waiting
from gemma_model.engine.runner import Loaded, Runner
from gemma_model.engine.sampler import Draw, Penalties, sample
from gemma_model.engine.scores import score
from gemma_model.models.gemma3n.nested_models import NestedModel
from gemma_model.protocol import Generation, Sampling
from gemma_model.settings import Settings

from ..fake_gpu import fake_gpu, watched
from .test_decoding import Again

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
def runner(folder: Path, gpu: None) -> Runner:
    settings = Settings(device="cuda", dtype="bfloat16", max_num_seqs=4, max_model_len=256, compile="off")
    return Loaded(folder, settings).runner


WISHES: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "random": 0.5},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "random": 0.5},
    {"temperature": 1.0, "top_p": 0.9, "random": 0.5, "banned": {1, 2, 10**9}},
    {"penalties": Penalties(np.array([1, 5]), np.array([1, 4], np.float32), 1.5, 0.5, 1.0)},
    {"bias": (np.array([4, 900, 5000]), np.array([3.0, -3.0, 100.0], np.float32))},
    {"forbidden": None},
]


def draw(wish: dict[str, Any]) -> Draw:
    masked = {"forbidden": torch.zeros(VOCAB, dtype=torch.bool)} if "forbidden" in wish else {}
    return Draw(**(wish | masked))


@pytest.mark.parametrize("wishes", [*([wish] for wish in WISHES), WISHES])
def test_the_sampler_keeps_to_the_device_of_its_logits(gpu: None, wishes: list[dict[str, Any]]) -> None:
    logits = torch.zeros(len(wishes), VOCAB, device="cuda")
    assert len(sample(logits, [draw(wish) for wish in wishes])) == len(wishes)


def test_scores_keep_to_the_device_of_their_logits(gpu: None) -> None:
    assert len(score(torch.zeros(3, VOCAB, device="cuda"), [1, 2, 3], 5)) == 3


@pytest.mark.parametrize("way", ["as it is", "recorded"])
def test_plans_run(checkpoint: Any, runner: Runner, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture, a sound, a fork, scores of a prompt, and rows of two models, in slots out of order."""
    decoder: Any = runner._decoder
    config = decoder.config
    half = NestedModel(tuple(size // 2 for size in config.intermediate_size))
    runner = Runner(runner._decoder, runner._cache, runner._soft_tokens, {"small": decoder.nested(half)})
    if way == "recorded":
        monkeypatch.setattr(decoding, "float", lambda _: 0.0, raising=False)  # nothing can be compared
        runner.record(Again, {"its own operations": False})
        assert isinstance(runner._steps["small"], Recorded)
    sound, _ = checkpoint.with_sound(200, seed=4, frames=90)
    prompts = [checkpoint.with_picture(40, 1), sound, checkpoint.text(20, 1)]
    rules = Sampling(1.0, top_p=0.9, frequency_penalty=0.5, logit_bias={3: 1.0}, seed=1)
    asked = [
        Generation(prompts[0], Sampling(temperature=0, seed=0), 5, n=2),
        Generation(prompts[1], rules, 5, variant="small"),
        Generation(prompts[2], rules, 5, logprobs=3, prompt_logprobs=3),
    ]
    choices = {(i, j): Choice(one, j) for i, one in enumerate(asked) for j in range(one.n)}
    prefills = (
        Prefill((0, 0), 3, 0, 40, True, True, (Fork((0, 1), 1),)),
        Prefill((1, 0), 0, 0, 100, False, True),
        Prefill((2, 0), 2, 0, 20, True, True),
    )
    for name in ((0, 0), (1, 0)):
        (medium,) = encoder_inputs(choices[name].generation)
        runner.retain({each.key for one in asked for each in encoder_inputs(one)})
        while medium.key not in runner.encoded:
            waits = Encode(medium.key, (Waiting((name,), 0),))
            assert not runner.run(Plan(encode=waits), choices).failed
    first = runner.run(Plan(prefills), choices)
    assert not first.failed
    assert len(first.tokens) == 3
    decodes = tuple(
        Decode(name, slot, 60, 1, 7, False) for name, slot in zip(choices, (3, 1, 0, 2), strict=True)
    )
    second = runner.run(Plan((), decodes), choices)
    assert not second.failed
    assert len(second.tokens) == 4
