"""Drafts change the speed alone: text and log probabilities are equal bit for bit (CPU kernels)."""

import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer

from gemma_model.detokenizer import TokenBytes
from gemma_model.engine.drafts.draft_source import Draft
from gemma_model.engine.drafts.speculation import Speculation
from gemma_model.engine.drafts.step_cost import StepCost
from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.model_loader import ring_slack
from gemma_model.engine.model_runner import ModelRunner
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine_types import DraftKind, EngineRequest, EngineSamplingParams, PositionLogprobs
from gemma_model.layers.kv_block_pool import KVBlockPool
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.specs import LayerKVSpec
from gemma_model.sampling.sampling_state import SamplingState
from gemma_model.structured_output.compiler import GrammarCompiler
from gemma_wire import JsonGrammar, Options

from .conftest import LENGTH, Native, Recorder
from .counting import native_engine
from .test_grammar_drafts import SCHEMA
from .test_options import STOP, VOCAB, Counting
from .test_prefix_reuse import nested

Key = tuple[tuple[int, ...], int | None, int]
Truth = dict[Key, list[int]]
LONGEST = 6


class FreeRows(StepCost):
    """All drafts are checked, however bad they are."""

    @property
    def row_seconds(self) -> float:
        return 0.0


class Oracle:
    """Knows the output, and sometimes lies."""

    kind: DraftKind = "ngram"

    def __init__(self, truth: Sequence[int], dice: random.Random, lies: float) -> None:
        self._truth, self._dice, self._lies = truth, dice, lies
        self._done = 0

    def append(self, token_id: int) -> None:
        self._done += 1

    def propose(self, limit: int) -> Draft:
        right = self._truth[self._done : self._done + self._dice.randint(0, limit)]
        lies = [self._dice.randrange(VOCAB) for _ in range(max(0, self._dice.randint(-3, 3)))]
        tokens = [
            self._dice.randrange(VOCAB) if self._dice.random() < self._lies else token for token in right
        ]
        return Draft([*tokens, *lies][:limit])


def server(
    checkpoint: Any, truth: Truth | None, seed: int = 0, blocks: int = 0, lies: float = 0.2, slots: int = 4
) -> Native:
    """An engine with slots that keep as few positions as they may, and with drafts if the truth is known."""
    of, chunk = checkpoint.loaded.runner, 16
    kept, drafted = chunk if blocks else 0, LONGEST if truth is not None else 0
    cache = KVCache(checkpoint.loaded.model.cache_spec, slots, LENGTH, extra_columns=kept + drafted)
    pool, variants = KVBlockPool(cache, blocks, 4), {"small": nested(checkpoint)}
    recorder = Recorder(ModelRunner(of._decoder, cache, pool, of._media_encoder, variants))
    free = KVSlots(slots)
    prefix_cache = PrefixCache(blocks, min(cache.window + kept, LENGTH), 4)
    engine = native_engine(recorder, Scheduler(free, prefix_cache, 10_000, chunk), LENGTH)
    dice = random.Random(seed)
    if truth is not None:

        def sources(state: SamplingState) -> list[Oracle]:
            return [Oracle(truth[key_of(state.request, state.choice)], dice, lies)]

        engine._speculation = Speculation(LONGEST, make_sources=sources)
        engine._speculation._cost = FreeRows()
    return Native(engine, recorder, free)


def key_of(request: EngineRequest, choice: int) -> Key:
    return request.prompt.token_ids, request.sampling.seed, choice


def requests(checkpoint: Any, dice: random.Random, count: int) -> list[EngineRequest]:
    """Requests with any options, whose prompts begin alike."""
    found = []
    for seed in range(count):
        common = checkpoint.text(60, seed % 3).token_ids[: dice.choice([0, 20, 60])]
        prompt = replace(checkpoint.text(5, 0), token_ids=(*common, *checkpoint.text(9, 50 + seed).token_ids))
        if seed % 8 == 7:
            prompt = checkpoint.with_picture(40, seed % 3)
        sampling = EngineSamplingParams(
            temperature=dice.choice([0.0, 0.7, 1.5]),
            top_k=dice.choice([0, 0, 3, 30]),
            top_p=dice.choice([1.0, 0.9]),
            min_p=dice.choice([0.0, 0.05]),
            repetition_penalty=dice.choice([1.0, 1.0, 1.4]),
            frequency_penalty=dice.choice([0.0, 0.0, 0.7]),
            presence_penalty=dice.choice([0.0, 0.0, -0.5]),
            logit_bias=dice.choice([{}, {7: 3.0, STOP: 2.0, 10**6: 1.0}]),
            seed=seed,
        )
        found.append(
            EngineRequest(
                prompt,
                sampling,
                max_tokens=dice.choice([1, 2, 7, 40]),
                min_tokens=dice.choice([0, 0, 5]),
                stop_token_ids=frozenset(dice.choice([(), (STOP,), range(0, VOCAB, 11)])),
                n=dice.choice([1, 1, 1, 3]),
                logprobs=dice.choice([None, None, 0, 3]),
                prompt_logprobs=dice.choice([None] * 9 + [1]),
                constraint=Counting(dice.choice([1, 6, 20]), dice.choice([None, None, 4]))
                if dice.random() < 0.4
                else None,
                variant=dice.choice([None, None, "small"]),
                cache_salt=dice.choice([None, None, "salt"]),
            )
        )
        if found[-1].constraint:
            found[-1] = replace(found[-1], stop_token_ids=frozenset({STOP}))
    return found


def said(answer: Any, choice: int) -> tuple[list[int], list[PositionLogprobs], object]:
    """Tokens, log probabilities and the end of a choice."""
    end = next(step for step in answer.steps if step.last and step.choice == choice)
    return answer.choice(choice), answer.scores(choice), (end.finish, end.error)


@pytest.mark.parametrize(("seed", "blocks"), [(1, 0), (2, 300), (3, 20), (5, 300)])
def test_right_and_wrong_drafts_change_nothing(checkpoint: Any, seed: int, blocks: int) -> None:
    dice = random.Random(seed)
    pool = requests(checkpoint, dice, 24)
    plain = server(checkpoint, None)
    alone = [plain.listened(request)[0] for request in pool]
    truth = {
        key_of(request, choice): answer.choice(choice)
        for request, answer in zip(pool, alone, strict=True)
        for choice in range(request.n)
    }
    tested, asked, doomed = server(checkpoint, truth, seed, blocks), [], list[tuple[int, int | None]]()
    for _ in range(45):
        which, answer = dice.randrange(len(pool)), checkpoint.answer()
        number = tested.engine.submit(pool[which], answer)
        asked.append((which, answer))
        if dice.random() < 0.2:
            doomed.append((number, dice.choice([None, 0])))
        for _ in range(dice.choice([0, 0, 1, 3])):
            tested.engine.step()
        if doomed and dice.random() < 0.3:
            tested.engine.cancel(*doomed.pop())
    tested.run()
    for which, answer in asked:
        for choice in range(pool[which].n):
            (tokens, scores, end), expected = said(answer, choice), said(alone[which], choice)
            if end == ("cancelled", None):
                assert (tokens, scores) == (expected[0][: len(tokens)], expected[1][: len(scores)])
            else:
                assert (tokens, scores, end) == expected
        if any(tokens := answer.choice(choice) for choice in range(pool[which].n)):
            assert answer.prompt_logprobs == alone[which].prompt_logprobs or not tokens
    info = tested.engine.info()
    assert (info.running, info.waiting, info.slots_used, info.cache_tokens_used) == (0, 0, 0, 0)
    assert info.totals.accepted["ngram"] > 50
    assert info.totals.drafted["ngram"] - info.totals.accepted["ngram"] > 50


def test_right_drafts_take_fewer_steps(checkpoint: Any) -> None:
    request = EngineRequest(checkpoint.text(20, 1), EngineSamplingParams(temperature=1.2, seed=5), 43)
    (alone,) = server(checkpoint, None).listened(request)

    class Sure(random.Random):
        def randint(self, first: int, last: int) -> int:
            return last if first == 0 else -1

    tested = server(checkpoint, {key_of(request, 0): alone.tokens}, lies=0.0)
    make = tested.engine._speculation._make_sources
    tested.engine._speculation._make_sources = lambda state: [_sure(make(state)[0], Sure())]
    (answer,) = tested.listened(request)
    assert answer.tokens == alone.tokens
    assert len(tested.recorder.plans) == 2 + 42 // (LONGEST + 1), (
        "a prompt of two chunks, and seven tokens a step"
    )
    assert tested.engine.info().totals.accepted == {"ngram": 36}


def _sure(oracle: Any, dice: random.Random) -> Any:
    oracle._dice = dice
    return oracle


def test_what_a_wrong_draft_left_in_a_slot_is_not_in_the_prefix_cache(checkpoint: Any) -> None:
    """The rings wrap with a draft at each step, and a second request continues from the saved blocks."""
    sampling = EngineSamplingParams(temperature=1.0, seed=3)
    first = EngineRequest(checkpoint.text(100, 1), sampling, 120, logprobs=2)
    plain = server(checkpoint, None)
    (alone,) = plain.listened(first)
    longer = replace(first, prompt=checkpoint.longer(first.prompt, *alone.tokens, 9, 8))
    (alone_longer,) = plain.listened(longer)
    truth = {key_of(first, 0): alone.tokens, key_of(longer, 0): alone_longer.tokens}
    tested = server(checkpoint, truth, blocks=400, lies=0.5)
    for request, expected in ((first, alone), (longer, alone_longer)):
        (answer,) = tested.listened(request)
        assert (answer.tokens, answer.scores()) == (expected.tokens, expected.scores())
    assert answer.steps[0].cached_tokens >= 216


def test_grammars_predictions_and_repeated_text_change_nothing(checkpoint: Any) -> None:
    """The real sources, whose drafts are all checked."""
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
    with closing(GrammarCompiler(tokenizer, TokenBytes(tokenizer), VOCAB, (), {STOP}, 10**6)) as compiler:
        compiled = compiler.compile(Options(grammar=JsonGrammar(json_schema=SCHEMA)), 100, frozenset({STOP}))
    assert compiled is not None
    period = replace(checkpoint.text(6, 1), token_ids=checkpoint.text(6, 1).token_ids * 4)
    asked = [
        EngineRequest(
            period,
            EngineSamplingParams(
                temperature=seed % 3 / 2, seed=seed, logit_bias={5 + seed: 30.0} if seed > 9 else {}
            ),
            60,
            stop_token_ids=frozenset({STOP}),
            logprobs=1,
            constraint=compiled.constraint if seed < 8 else None,
        )
        for seed in range(12)
    ]
    alone = server(checkpoint, None).listened(*asked)
    tested = server(checkpoint, {})
    tested.engine._speculation = Speculation(LONGEST)
    tested.engine._speculation._cost = FreeRows()
    predicting = [
        replace(request, prediction=tuple(alone[place - place % 2].tokens) if place >= 4 else ())
        for place, request in enumerate(asked)
    ]
    for answer, expected in zip(tested.listened(*predicting), alone, strict=True):
        assert (answer.tokens, answer.scores()) == (expected.tokens, expected.scores())
    accepted = tested.engine.info().totals.accepted
    assert all(accepted[kind] > 5 for kind in ("grammar", "prediction", "ngram")), accepted


@pytest.mark.parametrize("window", [4, 16, 512])
@pytest.mark.parametrize("chunk", [0, 1, 5, 512])
@pytest.mark.parametrize("draft", [0, 3, 16])
def test_rings_keep_the_window_and_a_chunk_beside_a_draft(window: int, chunk: int, draft: int) -> None:
    spec = [LayerKVSpec(1, 8, None), LayerKVSpec(1, 8, window)]
    columns = window + ring_slack(spec, chunk, draft)
    assert columns - draft >= max(window, chunk)
    assert window < draft or columns == window + max(chunk, draft), "no larger than necessary"


def test_waiting_requests_have_no_index_of_their_prompts(checkpoint: Any) -> None:
    """An index of a long prompt takes megabytes, and hundreds of requests may wait."""
    request = EngineRequest(checkpoint.text(20, 1), EngineSamplingParams(temperature=0), 4)
    tested, made = server(checkpoint, {}, slots=2), list[SamplingState]()

    def count(state: SamplingState) -> list[Any]:
        made.append(state)
        return []

    tested.engine._speculation._make_sources = count
    answers = [checkpoint.answer() for _ in range(6)]
    for answer in answers:
        tested.engine.submit(request, answer)
    assert made == []
    tested.engine.step()
    assert 1 <= len(made) <= 2
    while any(not answer.steps or not answer.steps[-1].last for answer in answers):
        tested.engine.step()
    assert len(made) == 6
