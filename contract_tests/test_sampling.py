"""Sampling and its output: seeds, several choices, log probabilities, stop strings, Unicode."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from server import CHAT, Api
from streams import merge, read

TIMES = 10
RANDOM: Any = {"temperature": 1.5, "top_p": 1, "top_k": 0}


def _text(answer: Any, index: int = 0) -> str:
    return str(answer["choices"][index]["message"]["content"])


def test_the_same_seed_gives_the_same_text_alone_and_under_load(api: Api) -> None:
    options: Any = {"max_tokens": 24, "seed": 7, **RANDOM}

    def ask(number: int) -> str:
        return _text(api.chat(**options).json)

    def load(number: int) -> str:
        message = {"role": "user", "content": f"Noise {number} " * (number + 1)}
        return _text(api.chat(messages=[message], max_tokens=48, seed=number, **RANDOM).json)

    alone = {ask(number) for number in range(TIMES)}
    with ThreadPoolExecutor(16) as pool:
        noise = [pool.submit(load, number) for number in range(12)]
        together = {*pool.map(ask, range(TIMES))}
        assert len({each.result() for each in noise}) > 1
    assert len(alone) == 1
    assert together == alone


def test_choices_differ_and_the_first_equals_that_of_one_choice(api: Api) -> None:
    options: Any = {"max_tokens": 12, "seed": 5, **RANDOM}
    one, four = api.chat(**options).json, api.chat(**options, n=4).json
    assert _text(four, 0) == _text(one)
    assert len({_text(four, index) for index in range(4)}) == 4
    assert four["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert four["usage"]["completion_tokens"] > one["usage"]["completion_tokens"]


def test_best_of_returns_the_most_likely_choice(api: Api) -> None:
    options: Any = {"max_tokens": 6, "seed": 3, "logprobs": 0, **RANDOM}
    many = api.complete(**options, n=4).json["choices"]
    (best,) = api.complete(**options, n=1, best_of=4).json["choices"]

    def mean(choice: Any) -> float:
        told = choice["logprobs"]["token_logprobs"]
        return float(sum(told) / len(told))

    assert mean(best) == pytest.approx(max(map(mean, many)), abs=1e-4)


def test_log_probabilities_form_a_distribution(api: Api) -> None:
    """They do not sum to more than one, come best first, and do not change with the temperature."""
    answer = api.chat(logprobs=True, top_logprobs=20, seed=1, max_tokens=12, **RANDOM).json
    for each in answer["choices"][0]["logprobs"]["content"]:
        top = [other["logprob"] for other in each["top_logprobs"]]
        assert top == sorted(top, reverse=True)
        assert sum(map(math.exp, top)) <= 1.0001
        assert all(other <= 0 for other in (*top, each["logprob"]))
        known = {tuple(other["bytes"] or ()): other["logprob"] for other in each["top_logprobs"]}
        if tuple(each["bytes"] or ()) in known:
            assert each["logprob"] == pytest.approx(known[tuple(each["bytes"] or ())], abs=1e-4)


def test_echo_with_logprobs_reports_those_of_the_prompt(api: Api) -> None:
    """The prompt's log probabilities are those of the same text when the model says it itself."""
    said = api.complete(prompt="Once upon", max_tokens=4, temperature=0, logprobs=1, ignore_eos=True).json
    choice = said["choices"][0]
    echoed = api.complete(
        prompt="Once upon", max_tokens=4, temperature=0, logprobs=1, echo=True, ignore_eos=True
    )
    told = echoed.json["choices"][0]["logprobs"]
    assert told["token_logprobs"][-4:] == pytest.approx(choice["logprobs"]["token_logprobs"], abs=1e-4)
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["text_offset"]) > 4
    alone = api.complete(prompt="Once upon", max_tokens=0, logprobs=1, echo=True).json["choices"][0]
    assert alone["text"] == "Once upon"
    assert alone["logprobs"]["token_logprobs"] == pytest.approx(told["token_logprobs"][:-4], abs=1e-4)


def test_stop_strings_are_never_in_the_text(api: Api) -> None:
    options: Any = {"max_tokens": 60, "temperature": 0, "ignore_eos": True}
    whole = _text(api.chat(**options).json)
    for start in range(0, max(len(whole) - 8, 1), 5):
        stop = whole[start : start + 3]
        if not stop or "\ufffd" in stop:
            continue
        answer = api.chat(**options, stop=[stop, "never"]).json["choices"][0]
        assert answer["finish_reason"] == "stop"
        assert answer["message"]["content"] == whole[: whole.index(stop)]


def test_an_incomplete_stop_string_is_sent_at_the_end(api: Api) -> None:
    options: Any = {"max_tokens": 30, "temperature": 0, "ignore_eos": True}
    whole = _text(api.chat(**options).json)
    stop = whole[-2:] + "\u2603 never"
    streamed = read(api.chat(**options, stop=stop, stream=True).text)
    assert merge(CHAT, streamed)["choices"][0]["message"]["content"] == whole


def test_penalties_bias_and_bounds_have_an_effect(api: Api) -> None:
    plain: Any = {"max_tokens": 24, "temperature": 0, "ignore_eos": True}
    text = _text(api.chat(**plain).json)
    for change in (
        {"frequency_penalty": 2},
        {"presence_penalty": 2},
        {"repetition_penalty": 2},
        {"temperature": 1.5, "seed": 1},
    ):
        assert _text(api.chat(**{**plain, **change}).json) != text, change
    assert _text(api.chat(**plain, min_p=1).json) == text
    forced = api.complete(prompt="Hi", max_tokens=3, logit_bias={"300": 100}, temperature=0, ignore_eos=True)
    assert (
        len(
            set(
                api.http.post("/tokenize", json={"prompt": forced.json["choices"][0]["text"]}).json()[
                    "tokens"
                ]
            )
        )
        <= 4
    )


def test_min_tokens_delay_the_end(api: Api) -> None:
    for seed in range(4):
        answer = api.chat(min_tokens=8, max_tokens=8, seed=seed, **RANDOM).json
        assert answer["usage"]["completion_tokens"] == 8


def test_a_stop_token_ends_the_text(api: Api) -> None:
    tokens = api.http.post("/tokenize", json={"prompt": "x", "add_special_tokens": False}).json()["tokens"]
    answer = api.chat(
        logit_bias={str(tokens[0]): 100}, stop_token_ids=tokens[:1], temperature=0, max_tokens=5
    ).json
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 1


UNICODE = ("🦊🏳️‍🌈👩🏽‍🚀", "e\u0301o\u0308n\u0303", "안녕하세요 각", "नमस्ते", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "a\u200bb\u202e")


@pytest.mark.parametrize("text", UNICODE)
def test_unicode_characters_are_never_split(api: Api, text: str) -> None:
    """Said by a constrained model, over as many tokens as it likes, and streamed."""
    form = {"choice": [text]}
    streamed = api.chat(structured_outputs=form, stream=True, max_tokens=200, **RANDOM)
    chunks = read(streamed.text)
    pieces = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("text", [*UNICODE, "<end_of_turn>", "", " x", "a\n\n\tb"])
def test_tokenize_and_detokenize(api: Api, text: str) -> None:
    tokens = api.ask(
        "/tokenize", {"prompt": text, "add_special_tokens": False, "return_token_strs": True}
    ).json
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    assert api.ask("/detokenize", {"tokens": tokens["tokens"]}).json["prompt"] == text


def test_tokenize_equals_the_prompt_tokens_of_usage(api: Api) -> None:
    counted = api.ask("/tokenize", {"prompt": "Once upon a time"}).json["count"]
    assert api.complete(max_tokens=1).json["usage"]["prompt_tokens"] == counted


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_streamed_and_complete_responses_are_equal_for_many_seeds(api: Api) -> None:
    for seed in range(200):
        options: Any = {"max_tokens": 40, "seed": seed, **RANDOM}
        whole = _text(api.chat(**options).json)
        streamed = read(api.chat(**options, stream=True).text)
        assert merge(CHAT, streamed)["choices"][0]["message"]["content"] == whole
