import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from gemma_model.engine.transformers_engine import TransformersEngine
from gemma_model.engine.transformers_sampler import SeededSampler, truncate
from gemma_model.engine_types import EngineOutput, EngineRequest, EngineSamplingParams, TokenizedPrompt
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest, Overloaded

GREEDY = EngineSamplingParams(temperature=0)


@pytest.fixture(scope="module")
def folder(folder_of: Callable[[str], Path]) -> Path:
    return folder_of("quick")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(folder, Settings(device="cpu", max_num_seqs=4, max_queue=64))
    yield engine
    engine.close()


class Listener:
    """Collects the outputs of one request."""

    def __init__(self, choices: int = 1) -> None:
        self.steps: list[EngineOutput] = []
        self.last_choice = choices - 1
        self.ended = threading.Event()
        self.first = threading.Event()

    def __call__(self, step: EngineOutput) -> None:
        assert not self.ended.is_set()
        self.steps.append(step)
        self.first.set()
        if step.last and step.choice == self.last_choice:
            self.ended.set()

    @property
    def ids(self) -> list[int]:
        return self.choice(0)

    def choice(self, index: int) -> list[int]:
        return [token for step in self.steps if step.choice == index for token in step.token_ids]


def _job(
    prompt: tuple[int, ...] = (2, 7, 300),
    max_tokens: int = 8,
    sampling: EngineSamplingParams = GREEDY,
    stop: frozenset[int] = frozenset(),
    **rest: Any,
) -> EngineRequest:
    return EngineRequest(TokenizedPrompt(prompt), sampling, max_tokens, stop_token_ids=stop, **rest)


def _run(engine: TransformersEngine, *jobs: EngineRequest) -> list[Listener]:
    listeners = [Listener(job.n) for job in jobs]
    for job, listener in zip(jobs, listeners, strict=True):
        engine.submit(job, listener)
    for listener in listeners:
        assert listener.ended.wait(60)
    return listeners


def test_greedy_tokens_are_those_of_transformers_generate(engine: TransformersEngine, folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    expected = model.generate(
        torch.tensor([[2, 7, 300]]), max_new_tokens=8, do_sample=False, eos_token_id=None
    )
    (listener,) = _run(engine, _job())
    assert listener.ids == expected[0, 3:].tolist()
    assert listener.steps[-1].finish == "length"


def test_each_token_is_a_step_of_its_own(engine: TransformersEngine) -> None:
    (listener,) = _run(engine, _job())
    assert [len(step.token_ids) for step in listener.steps] == [1] * 8 + [0]


def test_a_stop_token_ends_it_and_is_counted(engine: TransformersEngine) -> None:
    ids = _run(engine, _job())[0].ids
    stop = ids[3]
    (listener,) = _run(engine, _job(stop=frozenset({stop})))
    assert listener.ids == ids[: ids.index(stop) + 1]
    assert listener.steps[-1].finish == "stop"


def test_min_tokens_keeps_stop_tokens_away(engine: TransformersEngine) -> None:
    first = _run(engine, _job())[0].ids[0]
    (listener,) = _run(engine, _job(min_tokens=4, stop=frozenset({first})))
    assert first not in listener.ids[:4]


def test_a_seed_determines_the_token_in_any_batch(engine: TransformersEngine) -> None:
    hot = EngineSamplingParams(temperature=1.5, seed=11)
    alone = _run(engine, _job(sampling=hot, max_tokens=12))[0].ids
    crowd = [_job((2, 50 + i), sampling=EngineSamplingParams(temperature=1.0)) for i in range(6)]
    together = _run(engine, *crowd, _job(sampling=hot, max_tokens=12))[-1].ids
    other = _run(engine, _job(sampling=EngineSamplingParams(temperature=1.5, seed=12), max_tokens=12))[0].ids
    assert alone == together != other


def test_sixteen_concurrent_requests_equal_each_alone(engine: TransformersEngine) -> None:
    jobs = [_job((2, *range(20, 21 + 5 * i))) for i in range(16)]
    alone = [_run(engine, job)[0].ids for job in jobs]
    assert [listener.ids for listener in _run(engine, *jobs)] == alone
    assert len({tuple(ids) for ids in alone}) > 8


def test_cancelling_ends_soon_and_frees_the_place(engine: TransformersEngine) -> None:
    listener = Listener()
    number = engine.submit(_job(max_tokens=4000), listener)
    assert listener.first.wait(30)
    engine.cancel(number)
    assert listener.ended.wait(5)
    assert listener.steps[-1].finish == "cancelled"
    assert (engine.info().running, engine.info().waiting) == (0, 0)
    engine.cancel(number)  # an ended one is left alone


def test_it_requires_the_towers() -> None:
    with pytest.raises(InvalidRequest, match="always loads the towers"):
        Settings.read({"device": "cpu", "engine": "reference", "towers": "none"}, {})


def test_a_full_queue_is_overloaded_and_a_waiting_one_can_be_cancelled(folder: Path) -> None:
    engine = TransformersEngine(folder, Settings(device="cpu", max_num_seqs=1, max_queue=1))
    running, waiting = Listener(), Listener()
    engine.submit(_job(max_tokens=4000), running)
    assert running.first.wait(30)
    number = engine.submit(_job(), waiting)
    with pytest.raises(Overloaded, match="1 requests are waiting"):
        engine.submit(_job(), Listener())
    engine.cancel(number)
    engine.close()
    assert waiting.steps == [EngineOutput(finish="cancelled")]
    assert running.steps[-1].finish == "cancelled"


def test_a_broken_generation_is_an_error_and_the_engine_goes_on(engine: TransformersEngine) -> None:
    (broken,) = _run(engine, _job((10**6,)))
    assert broken.steps[-1].error is not None
    assert "IndexError" in broken.steps[-1].error
    assert _run(engine, _job())[0].steps[-1].finish == "length"
    deadline = time.monotonic() + 5
    while engine.info().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.info().running == 0


def test_truncation_keeps_the_top_k_and_the_nucleus() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.1, 0.3, 0.1]]))

    def kept(sampling: EngineSamplingParams) -> list[int]:
        return torch.isfinite(truncate(logits, sampling))[0].nonzero().flatten().tolist()

    assert kept(EngineSamplingParams()) == [0, 1, 2, 3]
    assert kept(EngineSamplingParams(top_k=2)) == [0, 2]
    assert kept(EngineSamplingParams(top_p=0.49)) == [0]
    assert kept(EngineSamplingParams(top_p=0.6)) == [0, 2]
    assert kept(EngineSamplingParams(top_k=1, top_p=0.99)) == [0]
    assert kept(EngineSamplingParams(min_p=0.7)) == [0]
    assert kept(EngineSamplingParams(min_p=0.5)) == [0, 2]


def test_samples_follow_the_softmax(engine: TransformersEngine) -> None:
    probabilities = torch.tensor([[0.6, 0.3, 0.1]])
    sampler = SeededSampler(_job(sampling=EngineSamplingParams(seed=3)), 1)
    nothing = torch.zeros(1, 1, dtype=torch.long)
    draws = torch.stack([sampler(nothing, probabilities.log()).argmax(-1)[0] for _ in range(3000)])
    shares = torch.bincount(draws, minlength=3) / 3000
    assert torch.allclose(shares, probabilities[0], atol=0.03)


def test_the_first_of_several_choices_equals_a_single_choice(engine: TransformersEngine) -> None:
    hot = EngineSamplingParams(temperature=1.5, seed=11)
    (alone,), (together,) = _run(engine, _job(sampling=hot)), _run(engine, _job(sampling=hot, n=3))
    answers = [together.choice(i) for i in range(3)]
    assert answers[0] == alone.ids
    assert len(set(map(tuple, answers))) == 3
    assert [(x.choice, x.finish) for x in together.steps if x.last] == [(i, "length") for i in range(3)]


def test_one_choice_is_cancelled_and_the_others_continue(engine: TransformersEngine) -> None:
    listener = Listener(3)
    number = engine.submit(_job(n=3, max_tokens=40), listener)
    assert listener.first.wait(30)
    engine.cancel(number, 1)
    engine.cancel(number, 0)
    assert listener.ended.wait(60)
    assert [x.finish for x in listener.steps if x.last] == ["cancelled", "cancelled", "length"]


def test_log_probabilities_sum_up_to_that_of_the_sequence(engine: TransformersEngine, folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    (listener,) = _run(engine, _job(logprobs=2, prompt_logprobs=2))
    ids = torch.tensor([[2, 7, 300, *listener.ids]])
    with torch.inference_mode():
        expected = model(ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(-1)
    scores = [x for step in listener.steps for x in (*step.prompt_logprobs, *step.logprobs)]
    assert len(scores) == len(ids[0]) - 1
    for place, found in enumerate(scores):
        assert found.logprob == pytest.approx(float(expected[place, ids[0, place + 1]]), abs=1e-4)
        assert [i for i, _ in found.top] == expected[place].topk(2).indices.tolist()
        if found.rank is not None:
            order = expected[place].argsort(descending=True).tolist()
            assert order[found.rank - 1] == int(ids[0, place + 1])
    assert [score.rank is not None for score in scores] == [True] * 2 + [False] * len(listener.ids)


def test_prompt_logprobs_are_limited_to_short_prompts(engine: TransformersEngine) -> None:
    with pytest.raises(InvalidRequest, match="1024") as caught:
        engine.submit(_job((2,) * 1025, prompt_logprobs=0), Listener())
    assert caught.value.field == "prompt_logprobs"
