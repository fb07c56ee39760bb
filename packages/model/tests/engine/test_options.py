"""What a request can ask of its answer, against the reference engine and against itself in company."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gemma_model.engine.transformers_engine import TransformersEngine
from gemma_model.engine_types import (
    EngineOutput,
    EngineRequest,
    EngineSamplingParams,
    PositionLogprobs,
    TokenizedPrompt,
)
from gemma_model.settings import Settings
from gemma_model.testing import tiny_tokenizer

VOCAB = tiny_tokenizer.TEXT_VOCAB + 2 * tiny_tokenizer.MM_VOCAB
STOP = 1
GREEDY = EngineSamplingParams(temperature=0.0)


class Counting:
    """The token behind ``k`` others is ``k`` modulo 7; behind enough of them only the stop token may come."""

    def __init__(self, length: int = 6, breaks_at: int | None = None, said: tuple[int, ...] = ()) -> None:
        self.length, self.breaks_at, self.said = length, breaks_at, said
        self.asked_by: set[str] = set()

    def allowed(self) -> npt.NDArray[np.int32]:
        self.asked_by.add(threading.current_thread().name)
        place = len(self.said)
        if place == self.breaks_at:
            raise RuntimeError("the grammar is broken")
        bits = np.zeros(-(-VOCAB // 32) * 32, np.uint8)
        bits[[STOP] if place >= self.length else range(place % 7, VOCAB, 7)] = 1
        return np.packbits(bits, bitorder="little").view(np.int32)

    def advance(self, token_id: int) -> None:
        self.said += (token_id,)

    def fork(self) -> "Counting":
        twin = Counting(self.length, self.breaks_at, self.said)
        twin.asked_by = self.asked_by
        return twin


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "repetition": ({"repetition_penalty": 1.4}, {}),
    "less than one": ({"repetition_penalty": 0.9}, {}),
    "frequency": ({"frequency_penalty": 0.8}, {}),
    "presence": ({"presence_penalty": 1.5}, {}),
    "bias": ({"logit_bias": {3: 4.0, 300: -5.0, 10**6: 100.0}}, {}),
    "min_tokens": ({}, {"min_tokens": 5, "stop_token_ids": frozenset(range(0, VOCAB, 3))}),
    "constraint": ({}, {"constraint": Counting(20)}),
    "a constraint that ends": ({}, {"constraint": Counting(4), "stop_token_ids": frozenset({STOP})}),
    "one that must": (
        {},
        {"constraint": Counting(4), "stop_token_ids": frozenset({STOP}), "min_tokens": 9},
    ),
    "one that nobody hears": ({}, {"constraint": Counting(4)}),
    "everything": (
        {
            "repetition_penalty": 1.2,
            "frequency_penalty": 0.3,
            "presence_penalty": -0.4,
            "logit_bias": {7: 1.0, 8: 2.0},
        },
        {"constraint": Counting(20), "min_tokens": 3, "stop_token_ids": frozenset({STOP, 0})},
    ),
}


def asking(prompt: TokenizedPrompt, name: str, max_tokens: int = 12, **sampling: Any) -> EngineRequest:
    mine, rest = OPTIONS[name]
    return EngineRequest(
        prompt, EngineSamplingParams(**{"temperature": 0.0, **mine, **sampling}), max_tokens, **rest
    )


@pytest.fixture(scope="module")
def reference(
    checkpoints: Callable[[str], Any],
) -> Iterator[Callable[[str, EngineRequest], list[EngineOutput]]]:
    engines: dict[str, TransformersEngine] = {}

    def run(shape: str, engine_request: EngineRequest) -> list[EngineOutput]:
        if shape not in engines:
            engines[shape] = TransformersEngine(checkpoints(shape).folder, Settings(device="cpu"))
        steps, ended = list[EngineOutput](), threading.Event()

        def listen(step: EngineOutput) -> None:
            steps.append(step)
            if step.last and step.choice == engine_request.n - 1:
                ended.set()

        engines[shape].submit(engine_request, listen)
        assert ended.wait(60)
        return steps

    yield run
    for engine in engines.values():
        engine.close()


def assert_same(found: list[PositionLogprobs], expected: list[PositionLogprobs]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        assert [value for _, value in ours.top] == pytest.approx([v for _, v in theirs.top], abs=1e-4)
        assert dict(ours.top) == pytest.approx(dict(theirs.top), abs=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_greedy_text_and_its_log_probabilities_are_the_reference_engine_s(
    checkpoint: Any, reference: Callable[[str, EngineRequest], list[EngineOutput]], name: str
) -> None:
    """The scores are the model's own: no option changes them but through the tokens that came."""
    engine_request = replace(asking(checkpoint.text(10, 5), name), logprobs=5)
    expected = reference("quick", engine_request)
    (answer,) = checkpoint.native().listened(engine_request)
    assert answer.tokens == [token for step in expected for token in step.token_ids]
    assert answer.end.finish == expected[-1].finish
    assert_same(answer.scores(), [score for step in expected for score in step.logprobs])


@pytest.mark.parametrize("chunk", [3, 64])
@pytest.mark.parametrize("top", [0, 3])
def test_a_prompt_s_log_probabilities_are_the_reference_engine_s(
    each_checkpoint: Any,
    reference: Callable[[str, EngineRequest], list[EngineOutput]],
    request: pytest.FixtureRequest,
    top: int,
    chunk: int,
) -> None:
    shape = request.node.callspec.params["each_checkpoint"]
    prompt = each_checkpoint.with_picture(70, 3)
    engine_request = EngineRequest(prompt, GREEDY, 3, logprobs=1, prompt_logprobs=top)
    expected = reference(shape, engine_request)
    (answer,) = each_checkpoint.native(chunk=chunk).listened(engine_request)
    assert len(answer.prompt_logprobs) == 69
    assert_same(answer.prompt_logprobs, [x for step in expected for x in step.prompt_logprobs])
    assert [x.rank for x in answer.prompt_logprobs] == [
        x.rank for step in expected for x in step.prompt_logprobs
    ]
    assert {len(x.top) for x in answer.prompt_logprobs} == {top}
    assert_same(answer.scores(), [x for step in expected for x in step.logprobs])
    assert answer.tokens == [x for step in expected for x in step.token_ids]


def test_prompt_logprobs_reuse_nothing_and_store_everything(checkpoint: Any) -> None:
    native, prompt = checkpoint.native(slots=1), checkpoint.text(20, 1)
    plain, scored = EngineRequest(prompt, GREEDY, 3), EngineRequest(prompt, GREEDY, 3, prompt_logprobs=0)
    answers = [native.listened(x)[0] for x in (plain, scored, plain)]
    assert answers[0].tokens == answers[1].tokens == answers[2].tokens
    assert [answer.end.cached_tokens for answer in answers] == [0, 0, 19]
    assert [native.recorder.tokens_run(number) for number in range(3)] == [20, 20, 1]


RANDOM: list[dict[str, Any]] = [
    {},
    {"top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"top_k": 40, "top_p": 0.9, "min_p": 0.02},
]


def test_a_seed_gives_the_same_text_and_logprobs_in_any_batch(checkpoint: Any) -> None:
    wanted = [
        replace(
            asking(checkpoint.text(10, i), name, temperature=1.1, seed=i, **RANDOM[i % len(RANDOM)]),
            n=1 + 2 * (i % 4 == 0),
            logprobs=(None, 3)[i % 2],
        )
        for i, name in enumerate(OPTIONS)
    ]
    alone = [checkpoint.native(slots=3).listened(engine_request)[0] for engine_request in wanted]
    others = [EngineRequest(checkpoint.text(30 + i, 70 + i), GREEDY, 9, logprobs=i) for i in range(5)]
    for slots in (5, 16):
        together = checkpoint.native(slots=slots).listened(*others, *wanted)[len(others) :]
        for engine_request, one, same in zip(wanted, alone, together, strict=True):
            for choice in range(engine_request.n):
                assert same.choice(choice) == one.choice(choice)
                assert_same(same.scores(choice), one.scores(choice))


def test_a_constraint_is_computed_in_another_thread_and_affects_no_other_row(checkpoint: Any) -> None:
    constraint = Counting(30)
    bound = EngineRequest(checkpoint.text(10, 1), EngineSamplingParams(seed=3), 14, constraint=constraint)
    free = EngineRequest(checkpoint.text(10, 2), EngineSamplingParams(seed=4), 14)
    alone = checkpoint.native().answers([free])[0]
    told, untold = checkpoint.native().answers([bound, free])
    assert [token % 7 for token in told] == [place % 7 for place in range(14)]
    assert untold == alone
    assert threading.current_thread().name not in constraint.asked_by
    assert constraint.asked_by
    assert constraint.said == (), "what was submitted is left as it was"


def test_a_constraint_that_raises_ends_only_its_choice(checkpoint: Any) -> None:
    native, prompt = checkpoint.native(), checkpoint.text(10, 1)
    bad = EngineRequest(prompt, GREEDY, 9, constraint=Counting(breaks_at=3))
    worse = EngineRequest(prompt, GREEDY, 9, constraint=Counting(breaks_at=0), n=2)
    broken, worst, fine = native.listened(bad, worse, EngineRequest(prompt, GREEDY, 9))
    assert (len(broken.tokens), broken.end.error) == (3, "RuntimeError: the grammar is broken")
    assert [step.error for step in worst.steps] == ["RuntimeError: the grammar is broken"] * 2
    assert fine.tokens == checkpoint.greedy([prompt], 9)[0]
    assert (native.slots.free, native.engine.info().slots_used) == (4, 0)
    assert native.answers([EngineRequest(prompt, GREEDY, 9)]) == [fine.tokens]
