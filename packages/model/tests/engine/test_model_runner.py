"""The native engine against transformers' generate, and against itself in other company."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gemma_model.engine.model_loader import LoadedRunner
from gemma_model.engine_types import EngineRequest, EngineSamplingParams, Media, TokenizedPrompt
from gemma_model.settings import Settings
from gemma_model.testing import tiny_tokenizer

GREEDY = EngineSamplingParams(temperature=0.0)

NEW = 64
LENGTHS = (2, 7, 16, 30, 33, 61)  # around the window of 32 and the chunk of 16


@pytest.fixture(scope="module")
def spoken(checkpoints: Callable[[str], Any]) -> list[tuple[TokenizedPrompt, list[int]]]:
    """64 prompts, 16 of them with a picture, and what transformers says to each."""
    checkpoint = checkpoints("quick")
    groups = [[checkpoint.text(length, 100 * length + i) for i in range(8)] for length in LENGTHS]
    groups += [[checkpoint.with_picture(length, 100 * length + i) for i in range(8)] for length in (24, 50)]
    said = [
        (prompt, answer)
        for group in groups
        for prompt, answer in zip(group, checkpoint.greedy(group, NEW), strict=True)
    ]
    assert len(said) == 64
    return said


def greedy(prompt: TokenizedPrompt, max_tokens: int = NEW) -> EngineRequest:
    return EngineRequest(prompt, GREEDY, max_tokens)


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_greedy_text_is_that_of_transformers(
    checkpoint: Any, spoken: list[tuple[TokenizedPrompt, list[int]]], slots: int
) -> None:
    """With chunks shorter than prompts, conversations continued, and others that come and are cancelled."""
    native, dice = checkpoint.native(slots=slots), random.Random(slots)
    answers = []
    for prompt, _ in spoken:
        answers.append(checkpoint.answer())
        native.engine.submit(greedy(prompt), answers[-1])
        if dice.random() < 0.3:
            stray = native.engine.submit(greedy(checkpoint.longer(prompt, 9, 8, 7), 400), checkpoint.answer())
            for _ in range(dice.randrange(8)):
                native.engine.step()
            native.engine.cancel(stray)
    native.run()
    assert [answer.tokens for answer in answers] == [expected for _, expected in spoken]
    assert native.slots.free == slots
    turns = [checkpoint.longer(prompt, *expected[:20], 3) for prompt, expected in spoken[:3]]
    fresh = [checkpoint.greedy([turn], 10)[0] for turn in turns]
    assert native.answers([greedy(turn, 10) for turn in turns]) == fresh


def test_another_shape_says_what_transformers_says(each_family: Any) -> None:
    prompts = [each_family.text(20, seed) for seed in range(6)]
    native = each_family.native(slots=4, chunk=7)
    assert native.answers([greedy(p, 24) for p in prompts]) == each_family.greedy(prompts, 24)


def test_a_conversation_continues_from_the_cache(each_family: Any) -> None:
    native, question = each_family.native(slots=2, chunk=7), each_family.text(30, seed=1)
    (said,) = native.answers([greedy(question, 12)])
    more = each_family.longer(question, *said, 3, 4, 5)
    assert native.answers([greedy(more, 12)]) == each_family.greedy([more], 12)
    assert native.recorder.tokens_run(2) < 5, "the rest was reused"


def test_audio_in_the_prompt_equals_transformers(checkpoint: Any) -> None:
    prompt, log_mel = checkpoint.with_sound(200, seed=4, frames=90)
    ids = torch.tensor([prompt.token_ids])
    said = checkpoint.oracle.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        input_features=log_mel.unsqueeze(0),
        input_features_mask=torch.ones(1, 90, dtype=torch.bool),
        max_new_tokens=12,
        do_sample=False,
    )
    assert checkpoint.native().answers([greedy(prompt, 12)])[0] == said[0, 200:].tolist()


def test_an_image_that_its_tower_cannot_process_fails_alone(checkpoint: Any) -> None:
    native, bad, good = checkpoint.native(), checkpoint.answer(), checkpoint.answer()
    flat = Media("image", b"flat", np.zeros((1, 8, 8), np.float32))
    native.engine.submit(greedy(checkpoint.text(20, 1), 5), good)
    native.engine.submit(greedy(checkpoint.with_picture(30, 1, flat), 5), bad)
    native.run()
    assert len(good.tokens) == 5
    assert bad.end.error
    assert native.slots.free == 4


def test_without_towers_the_text_is_the_same(checkpoint: Any) -> None:
    settings = Settings(device="cpu", max_num_seqs=1, max_model_len=512, towers="none")
    reading = replace(checkpoint, loaded=LoadedRunner(checkpoint.folder, settings))
    asked = [greedy(checkpoint.text(20, seed), 12) for seed in range(16)]
    answers = zip(reading.native().answers(asked), checkpoint.native().answers(asked), strict=True)
    text = [
        (said, wanted) for said, wanted in answers if max(wanted) < tiny_tokenizer.TEXT_VOCAB
    ]  # no tower's own id
    assert len(text) > 3
    assert all(said == wanted for said, wanted in text)
    assert reading.loaded.memory_bytes == checkpoint.loaded.memory_bytes  # on a CPU, towers stay in the file


def test_with_the_per_layer_table_on_the_device_the_text_is_the_same(checkpoint: Any) -> None:
    settings = Settings(device="cpu", max_num_seqs=1, max_model_len=512, ple="device")
    other = replace(checkpoint, loaded=LoadedRunner(checkpoint.folder, settings))
    asked = [greedy(checkpoint.text(20, seed), 12) for seed in range(3)]
    assert other.native().answers(asked) == checkpoint.native().answers(asked)
    more = other.loaded.memory_bytes - checkpoint.loaded.memory_bytes
    assert more == checkpoint.loaded.host_table.nbytes > 0


@pytest.mark.parametrize("chunk", [1, 5, 16, 300])
def test_the_size_of_a_chunk_changes_nothing(each_checkpoint: Any, chunk: int) -> None:
    engine_request = greedy(each_checkpoint.with_picture(70, 1), 12)
    whole = each_checkpoint.native(chunk=512).answers([engine_request])
    assert each_checkpoint.native(chunk=chunk).answers([engine_request]) == whole


def test_the_next_turn_continues_its_slot(each_checkpoint: Any) -> None:
    native, first = each_checkpoint.native(), each_checkpoint.with_picture(100, 2)
    said = native.answers([greedy(first, 20)])[0]
    turn = each_checkpoint.longer(first, *said, 11, 12, 13)
    fresh = each_checkpoint.native().answers([greedy(turn, 20)])
    answer = each_checkpoint.answer()
    native.engine.submit(greedy(turn, 20), answer)
    native.run()
    assert [answer.tokens] == fresh
    assert native.recorder.tokens_run(1) == 1 + 3, "the last token said was never run, and three are new"
    assert answer.end.cached_tokens == 100 + 20 - 1


def test_nothing_after_another_image_is_reused(checkpoint: Any) -> None:
    native = checkpoint.native(slots=1)
    native.answers([greedy(checkpoint.with_picture(100, 2), 5)])
    other = checkpoint.with_picture(100, 2, checkpoint.picture(77))
    assert native.answers([greedy(other, 20)]) == checkpoint.native().answers([greedy(other, 20)])
    assert native.recorder.tokens_run(1) == 100 - 4


def test_the_same_image_with_another_text_is_reused(checkpoint: Any) -> None:
    native, prompt = checkpoint.native(), checkpoint.with_picture(60, 2)
    native.answers([greedy(prompt, 5)])
    other = TokenizedPrompt((*prompt.token_ids[:40], *checkpoint.text(10, 5).token_ids), prompt.spans)
    assert native.answers([greedy(other, 20)]) == checkpoint.native().answers([greedy(other, 20)])
    assert native.recorder.tokens_run(1) == 10
