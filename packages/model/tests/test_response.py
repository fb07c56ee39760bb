from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from gemma_model.completion_output import OutputOptions
from gemma_model.detokenizer import TokenBytes
from gemma_model.engine_types import EngineOutput, PositionLogprobs
from gemma_model.response import ResponseStream
from gemma_wire import Chunk, PromptLogprobs, Timings, TokenLogprob, Usage

from .response_bench import END_OF_TURN, Bench, FakeChannel


@pytest.fixture(scope="module")
def bench(tiny: Path) -> Bench:
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    return Bench(
        tokenizer,
        OutputOptions(TokenBytes(tokenizer), (2, 300, 301), stop_token_ids=frozenset({1, END_OF_TURN})),
    )


def _timings(queued: float, prefill: float, decode: float) -> Timings:
    return Timings(queued=queued, prefill=prefill, decode=decode)


def _text(chunks: Sequence[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def _logprobs(chunks: Sequence[Chunk]) -> list[TokenLogprob]:
    return [told for chunk in chunks for told in chunk.logprobs]


def test_logprobs_come_with_the_text_they_belong_to(bench: Bench) -> None:
    text = "Hello 👋🏽 한국"
    chunks = bench.answer(bench.steps(text, scored=True), logprobs=True).chunks
    for chunk in chunks:
        assert b"".join(bytes(told.utf8) for told in chunk.logprobs).decode() == chunk.text
    assert _text(chunks) == text
    told = _logprobs(chunks)
    assert [one.token_id for one in told] == list(bench.ids(text))
    assert all(one.logprob == -one.token_id and one.top[0].token_id == one.token_id for one in told)
    assert told[-1].token == "\ufffd"


def test_logprobs_end_where_the_text_does(bench: Bench) -> None:
    chunks = bench.answer(bench.steps("abSTOPc", scored=True), logprobs=True, stop=("X", "STOP")).chunks
    assert [chunk.stop_string for chunk in chunks if chunk.finish_reason] == ["STOP"]
    assert _text(chunks) == "".join(one.token for one in _logprobs(chunks)) == "ab"
    assert chunks[-1].finish_reason == "stop"


def test_only_requested_log_probabilities_are_reported(bench: Bench) -> None:
    chunks = bench.answer(bench.steps("Hello", scored=True)).chunks
    assert not _logprobs(chunks)
    assert not any(chunk.token_ids for chunk in chunks)


def test_nothing_has_a_number(bench: Bench) -> None:
    step = EngineOutput(bench.ids("a"), logprobs=(PositionLogprobs(-float("inf")),), finish="length")
    assert _logprobs(bench.answer([step], logprobs=True).chunks)[0].logprob == -9999.0


@pytest.mark.parametrize("stream", [True, False])
def test_token_ids_are_all_that_count(bench: Bench, stream: bool) -> None:
    chunks = bench.answer(bench.steps("Hello 👋"), stream, token_ids=True).chunks
    told = [token for chunk in chunks for token in chunk.token_ids]
    assert tuple(told) == (*bench.ids("Hello 👋"), END_OF_TURN)
    assert chunks[-1].usage == Usage(prompt_tokens=3, completion_tokens=len(told))


def test_prompt_logprobs_come_first_and_at_once(bench: Bench) -> None:
    first_step, *others = bench.steps("Hello")
    steps = [
        replace(
            first_step,
            prompt_logprobs=(
                PositionLogprobs(-1.0, ((300, -1.0), (7, -3.0)), 1),
                PositionLogprobs(-2.0, rank=5),
            ),
        ),
        *others,
    ]
    chunks = bench.answer(steps, prompt_logprobs=True).chunks
    first, *rest = chunks
    told = first.prompt_logprobs
    assert told is not None
    assert (told.token_ids, told.logprobs, told.ranks) == ((300, 301), (-1, -2), (1, 5))
    assert told.top_ids == ((300, 7), ())
    assert {i: told.alternative(i, 0).token for i in (300, 301, 7)} == told.texts
    assert bytes(told.alternative(300, 0).utf8) == bench.options.table[300]
    assert not any(chunk.prompt_logprobs for chunk in rest)


@pytest.mark.parametrize("stream", [True, False])
def test_prompt_details_are_in_the_first_chunk_of_the_response(bench: Bench, stream: bool) -> None:
    scores = (PositionLogprobs(-1.0), PositionLogprobs(-2.0))
    begun, ended = (
        EngineOutput(bench.ids("a"), prompt_logprobs=scores),
        EngineOutput((END_OF_TURN,), choice=1, finish="stop"),
    )
    channel = FakeChannel()
    answer = ResponseStream(
        channel, stream, replace(bench.options, n=2, prompt_logprobs=True, token_ids=True)
    )
    answer.advance([begun, ended])  # both are new when the client's turn comes
    answer.advance([EngineOutput((END_OF_TURN,), finish="stop")])
    first, *rest = channel.chunks
    assert first.prompt_logprobs is not None
    assert (first.prompt_logprobs.token_ids, first.prompt_token_ids) == ((300, 301), (2, 300, 301))
    assert not any(chunk.prompt_logprobs or chunk.prompt_token_ids for chunk in rest)


def test_a_prompt_of_one_token_has_no_log_probabilities(bench: Bench) -> None:
    first, *_ = bench.answer(bench.steps("Hello"), prompt=(2,), prompt_logprobs=True).chunks
    assert first.prompt_logprobs == PromptLogprobs()


def test_each_chunk_has_the_token_counts_of_its_choice(bench: Bench) -> None:
    one, two = bench.steps("Hello you", 0), bench.steps("x", 1)
    chunks = bench.answer([*two, *one], n=2, usage=True).chunks
    for index, steps in enumerate((one, two)):
        own = [chunk.choice_usage for chunk in chunks if chunk.index == index]
        told = [usage.completion_tokens for usage in own if usage]
        assert len(told) == len(own)
        assert told == sorted(told)
        assert told[-1] == len(steps)
    assert {chunk.choice_usage.prompt_tokens for chunk in chunks if chunk.choice_usage} == {3}
    assert chunks[-1].usage == Usage(prompt_tokens=3, completion_tokens=len(one) + len(two))
    assert not any(chunk.choice_usage for chunk in bench.answer(one).chunks)


@pytest.mark.parametrize("scored", [True, False])
def test_control_tokens_are_written_if_requested(bench: Bench, scored: bool) -> None:
    start = bench.tokenizer.token_to_id("<start_of_turn>")
    assert start is not None
    steps = [
        EngineOutput((token,), logprobs=(PositionLogprobs(-1.0),) if scored else ())
        for token in (*bench.ids("a"), start, *bench.ids("b"))
    ]
    steps.append(EngineOutput((END_OF_TURN,), finish="stop"))
    chunks = bench.answer(steps, special=True, logprobs=scored).chunks
    assert _text(chunks) == "a<start_of_turn>b"
    assert not scored or b"".join(bytes(told.utf8) for told in _logprobs(chunks)) == b"a<start_of_turn>b"
    assert _text(bench.answer(steps).chunks) == "ab"
    assert _text(bench.answer(steps, special=True, stop=("<start_of",)).chunks) == "a"


@pytest.mark.parametrize("text", ["Hello STOP", "STOP"])
def test_a_stop_string_that_the_last_token_completes_is_the_reason(bench: Bench, text: str) -> None:
    """Not the limit of tokens, which the engine knows of alone."""
    *steps, last, _ = bench.steps(text)
    channel = bench.answer([*steps, replace(last, finish="length")], stop=("STOP",))
    assert channel.chunks[-1].finish_reason == "stop"
    assert _text(channel.chunks) == text.removesuffix("STOP")
    assert bench.answer([*steps, replace(last, finish="length")]).chunks[-1].finish_reason == "length"


def test_tokens_of_the_prediction_are_counted_over_all_choices(bench: Bench) -> None:
    def counted(index: int, accepted: int, rejected: int) -> list[EngineOutput]:
        first, *rest = bench.steps("Hello you", index)
        last = [
            replace(step, accepted_prediction_tokens=accepted, rejected_prediction_tokens=rejected)
            for step in rest
        ]
        return [first, *last]

    steps = [*counted(0, 3, 1), *counted(1, 5, 2)]
    usage = bench.answer(steps, n=2, prediction=True).chunks[-1].usage
    assert usage is not None
    assert (usage.accepted_prediction_tokens, usage.rejected_prediction_tokens) == (8, 3)
    plain = bench.answer(steps, n=2).chunks[-1].usage
    assert plain is not None
    assert plain.accepted_prediction_tokens is None


@pytest.mark.parametrize("stream", [True, False])
def test_choices_go_their_own_ways_and_usage_counts_the_prompt_once(bench: Bench, stream: bool) -> None:
    one, two = bench.steps("Hello you", 0), bench.steps("x STOP y", 1)
    steps = (
        [step for pair in zip(one, two, strict=False) for step in pair] + one[len(two) :] + two[len(one) :]
    )
    steps[-1] = replace(steps[-1], cached_tokens=2, timings=_timings(1, 2, 3))
    channel = bench.answer(steps, stream, n=2, stop=("STOP",))
    assert (_text(channel.chunks, 0), _text(channel.chunks, 1)) == ("Hello you", "x ")
    ends = [(chunk.index, chunk.finish_reason) for chunk in channel.chunks if chunk.finish_reason]
    assert sorted(ends) == [(0, "stop"), (1, "stop")]
    assert [chunk.usage is not None for chunk in channel.chunks] == [False] * (len(channel.chunks) - 1) + [
        True
    ]
    usage = channel.chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == 3
    assert usage.completion_tokens == len(one) + len(bench.ids("x STOP"))
    assert stream or len(channel.chunks) == 2


def test_timings_are_the_engines(bench: Bench) -> None:
    step = EngineOutput(bench.ids("a"), finish="length", cached_tokens=2, timings=_timings(0.1, 0.2, 0.3))
    (chunk,) = bench.answer([step]).chunks
    assert chunk.timings == Timings(queued=0.1, prefill=0.2, decode=0.3)
    assert chunk.usage == Usage(prompt_tokens=3, completion_tokens=1, cached_tokens=2)


CALLS = 'Look:\n<tool_call>f {"a": "</tool_call>é"}</tool_call>\n<tool_call>g {}</tool_call>'


@pytest.mark.parametrize("stream", [True, False])
def test_tool_calls_are_streamed(bench: Bench, stream: bool) -> None:
    channel = bench.answer(bench.steps(CALLS, scored=True), stream, tools=True, logprobs=True, stop=("é",))
    chunks = channel.chunks
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    assert _text(chunks) == "".join(told.token for told in _logprobs(chunks)) == "Look:\n"
    assert [delta.name for delta in deltas if delta.id] == ["f", "g"]
    arguments = ["".join(delta.arguments for delta in deltas if delta.index == i) for i in (0, 1)]
    assert arguments == ['{"a": "</tool_call>é"}', "{}"]
    assert chunks[-1].finish_reason == "tool_calls"
    if not stream:
        assert [(delta.index, delta.name) for delta in chunks[0].tool_calls] == [(0, "f"), (1, "g")]


def test_a_truncated_tool_call_is_reported_up_to_its_end(bench: Bench) -> None:
    steps = bench.steps('<tool_call>f {"a": "b')
    steps[-1] = EngineOutput(finish="length")
    chunks = bench.answer(steps, tools=True).chunks
    assert "".join(delta.arguments for chunk in chunks for delta in chunk.tool_calls) == '{"a": "b'
    assert chunks[-1].finish_reason == "length"


def test_the_first_chunk_has_unenforced_keywords_and_the_last_the_validation(bench: Bench) -> None:
    asked: list[object] = []

    def fits(text: str, calls: list[tuple[str, str]]) -> bool:
        asked.append((text, calls))
        return False

    chunks = bench.answer(bench.steps("Hello"), unenforced=("not",), is_valid=fits).chunks
    assert [chunk.unenforced for chunk in chunks] == [("not",)] + [()] * (len(chunks) - 1)
    assert [chunk.schema_valid for chunk in chunks] == [None] * (len(chunks) - 1) + [False]
    assert asked == [("Hello", [])]
    (whole,) = bench.answer(bench.steps("Hello"), stream=False, unenforced=("not",), is_valid=fits).chunks
    assert (whole.unenforced, whole.schema_valid) == (("not",), False)


def test_arguments_of_calls_are_validated(bench: Bench) -> None:
    asked: list[object] = []

    def fits(text: str, calls: list[tuple[str, str]]) -> bool:
        asked.append(calls)
        return True

    bench.answer(bench.steps(CALLS), tools=True, is_valid=fits)
    assert asked == [[("f", '{"a": "</tool_call>é"}'), ("g", "{}")]]


def test_a_grammar_that_is_too_complex_is_the_request_s_fault(bench: Bench) -> None:
    channel = bench.answer([EngineOutput(error="GrammarTooComplex: it is")])
    assert [(error.code, error.field) for error in channel.failed] == [("invalid_value", "options.grammar")]


def test_without_tools_calls_are_text(bench: Bench) -> None:
    assert _text(bench.answer(bench.steps(CALLS)).chunks) == CALLS


def test_one_failed_choice_fails_the_response(bench: Bench) -> None:
    channel = bench.answer([EngineOutput(bench.ids("a")), EngineOutput(choice=1, error="ValueError: x")], n=2)
    assert [error.message for error in channel.failed] == ["ValueError: x"]


def test_a_cancelled_response_has_no_finish_reason(bench: Bench) -> None:
    channel = bench.answer([EngineOutput(bench.ids("a")), EngineOutput(choice=1, finish="cancelled")], n=2)
    assert channel.closed
    assert not any(chunk.finish_reason for chunk in channel.chunks)
