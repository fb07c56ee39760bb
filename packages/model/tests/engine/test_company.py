"""Requests in each other's company: each gets the text that it gets alone."""

import gc
import random
from dataclasses import replace
from typing import Any

import torch

from gemma_model.engine_types import EngineRequest, EngineSamplingParams, TokenizedPrompt

GREEDY = EngineSamplingParams(temperature=0.0)


def greedy(prompt: TokenizedPrompt, max_tokens: int) -> EngineRequest:
    return EngineRequest(prompt, GREEDY, max_tokens)


def drawn(checkpoint: Any, seed: int, **rules: Any) -> EngineRequest:
    return EngineRequest(checkpoint.text(10, seed), EngineSamplingParams(**rules, seed=seed), 20)


def test_a_seed_gives_the_same_text_whatever_else_runs(checkpoint: Any) -> None:
    rules: list[dict[str, float]] = [{}, {"top_k": 5}, {"top_p": 0.8}, {"top_k": 40, "top_p": 0.9}]
    wanted = [drawn(checkpoint, seed, temperature=1.2, **rules[seed % 4]) for seed in range(8)]
    alone = [checkpoint.native(slots=1).answers([engine_request])[0] for engine_request in wanted]
    assert len({tuple(answer) for answer in alone}) == len(alone)
    others = [drawn(checkpoint, seed, temperature=0.7) for seed in range(50, 58)] + [
        greedy(checkpoint.text(40, 3), 20)
    ]
    assert checkpoint.native(slots=16).answers([*others, *wanted])[-8:] == alone


def test_a_seed_gives_the_same_numbers_among_prompts_of_any_length(checkpoint: Any) -> None:
    """Also of prompts so long that they fill a step alone, and of others in a different number of chunks."""
    lengths = (3, 40, 127, 128, 129, 150, 300, 400, 499)
    wanted = [hot(checkpoint, length, seed=length) for length in lengths]
    others = [hot(checkpoint, length, seed=1000 + length) for length in (200, 7, 90, 333, 256)]
    alone = [checkpoint.native(slots=1, chunk=512).listened(engine_request)[0] for engine_request in wanted]
    together = checkpoint.native(slots=16, chunk=512).listened(*others, *wanted)[len(others) :]
    for single, among in zip(alone, together, strict=True):
        assert among.tokens == single.tokens
        assert among.scores() == single.scores()


def hot(checkpoint: Any, length: int, seed: int) -> EngineRequest:
    return EngineRequest(
        checkpoint.text(length, seed), EngineSamplingParams(temperature=2.0, seed=seed), 12, logprobs=3
    )


def test_without_a_seed_two_answers_differ(checkpoint: Any) -> None:
    one, other = checkpoint.native().answers(
        [EngineRequest(checkpoint.text(10, 1), EngineSamplingParams(temperature=2.0), 20)] * 2
    )
    assert one != other


def test_min_tokens_holds_back_the_stop_token(checkpoint: Any) -> None:
    free = checkpoint.native().answers([greedy(checkpoint.text(10, 1), 20)])[0]
    stop, place = free[3], free.index(free[3])
    stopping = EngineRequest(checkpoint.text(10, 1), GREEDY, 20, stop_token_ids=frozenset({stop}))
    held = EngineRequest(checkpoint.text(10, 1), GREEDY, 20, min_tokens=10, stop_token_ids=frozenset({stop}))
    short, long = checkpoint.native().answers([stopping, held])
    assert short == free[: place + 1]
    assert len(long) >= 10
    assert stop not in long[:10]


def test_a_thousand_requests_of_which_a_tenth_is_cancelled(checkpoint: Any) -> None:
    dice, longest = random.Random(1), 8
    pool = [_any(checkpoint, dice, seed, longest) for seed in range(24)]
    alone = checkpoint.native(slots=3)
    expected = [_said(alone.listened(engine_request)[0], engine_request.n) for engine_request in pool]
    native = checkpoint.native(slots=16, chunk=64)
    native.answers(pool)  # every picture has been looked at
    held = storages()
    asked: list[tuple[int, int, int, Any]] = []
    doomed: list[int] = []
    for _ in range(1000):
        which, tokens, answer = dice.randrange(len(pool)), dice.randint(1, longest), checkpoint.answer()
        one = pool[which]
        number = native.engine.submit(replace(one, max_tokens=tokens), answer)
        asked.append((number, which, tokens, answer))
        doomed += [number] if number % 10 == 0 else []
        if dice.random() < 0.4:
            native.engine.step()
        if doomed and dice.random() < 0.1:
            native.engine.cancel(doomed.pop(dice.randrange(len(doomed))))
    for number in doomed:
        native.engine.cancel(number)
        native.engine.step()
    native.run()
    for number, which, tokens, answer in asked:
        assert len([step for step in answer.steps if step.last]) == pool[which].n
        for choice, whole in enumerate(expected[which]):
            said, told = whole[:tokens], answer.choice(choice)
            finish = next(step.finish for step in answer.steps if step.last and step.choice == choice)
            assert finish == ("length" if number % 10 else finish)
            assert told == (said if finish == "length" else said[: len(told)])
    load = native.engine.info()
    assert (load.running, load.waiting, load.slots_used, native.slots.free) == (0, 0, 0, 16)
    assert not storages() - held, "and no tensor is left that was not there"


def storages() -> set[tuple[int, int]]:
    """Where the tensors are that anybody still holds, and how many bytes each has."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
    return {(each.untyped_storage().data_ptr(), each.untyped_storage().nbytes()) for each in tensors}


def _any(checkpoint: Any, dice: random.Random, seed: int, new: int) -> EngineRequest:
    prompt = (
        checkpoint.with_picture(25, seed % 3) if seed % 8 == 0 else checkpoint.text(dice.randint(1, 24), seed)
    )
    rules = EngineSamplingParams(
        temperature=1.0, top_k=20, top_p=0.9, min_p=0.02, frequency_penalty=0.1 * (seed % 3), seed=seed
    )
    return EngineRequest(prompt, GREEDY if seed % 2 else rules, new, n=1 + 2 * (seed % 6 == 0))


def _said(answer: Any, choices: int) -> list[list[int]]:
    return [answer.choice(choice) for choice in range(choices)]


def test_a_long_prompt_delays_a_running_stream_by_one_chunk(checkpoint: Any) -> None:
    native = checkpoint.native(slots=2, chunk=16)
    stream = checkpoint.answer()
    native.engine.submit(greedy(checkpoint.text(3, 1), 64), stream)
    native.engine.step()
    native.engine.submit(greedy(checkpoint.text(400, 2), 5), checkpoint.answer())
    for tokens in range(2, 28):
        native.engine.step()
        assert len(stream.tokens) == tokens
    assert all(sum(p.stop - p.start for p in plan.prefills) <= 16 for plan in native.recorder.plans)
