"""Media are encoded part by part, once each; one that breaks fails alone, and nobody waits for an encoder."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gemma_model.engine.media_encoder import Encoding, MediaEncoder
from gemma_model.engine.prefill_pace import PrefillPace
from gemma_model.engine_types import EngineRequest, EngineSamplingParams, Media

ROW = 4 * 3 * 2  # bytes of what the encoder below makes of a medium
PARTS = 5


class Clock:
    """Goes on by a second with each part of an encoder."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Encoder:
    """Makes ``[1, 3, 2]`` of a medium in some parts, and remembers what it was given."""

    def __init__(self, clock: Clock) -> None:
        self.begun: list[str] = []
        self.parts = 0
        self.held: Callable[[], object] = lambda: None
        self._clock = clock

    def __call__(self, media: Media) -> Encoding:
        self.begun.append(media.digest.decode())
        activations = torch.zeros(9)
        self.held = weakref.ref(activations)
        for _ in range(PARTS):
            self.parts += 1
            self._clock.now += 1
            yield
        if media.digest.startswith(b"bad"):
            raise RuntimeError("choked")
        return torch.full((1, 3, 2), float(media.features.flat[0]))


def _medium(name: str, value: float = 0) -> Media:
    return Media("image", name.encode(), np.full(2, value, np.float32))


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(Clock())


def _soft_tokens(encoder: Encoder, budget: int = 10**6) -> MediaEncoder:
    return MediaEncoder(encoder, budget, encoder._clock)


def _encode(soft_tokens: MediaEncoder, *names: str) -> None:
    for name in names:
        soft_tokens.retain({name})
        while name not in soft_tokens:
            soft_tokens.advance(name, _medium(name, ord(name[-1])), 100)


@pytest.mark.parametrize(
    ("seconds", "parts", "calls"), [(0, 1, 6), (1, 1, 6), (2.5, 2, 3), (4.5, 4, 2), (5.5, 5, 2)]
)
def test_it_goes_on_for_the_time_that_it_gets_and_at_least_one_part(
    encoder: Encoder, seconds: float, parts: int, calls: int
) -> None:
    soft_tokens = _soft_tokens(encoder)
    soft_tokens.retain({"a"})
    soft_tokens.advance("a", _medium("a", 7), seconds)
    assert (encoder.parts, "a" in soft_tokens) == (parts, False)
    for _ in range(calls - 1):
        assert "a" not in soft_tokens
        soft_tokens.advance("a", _medium("a", 7), seconds)
    assert (encoder.parts, encoder.begun) == (PARTS, ["a"])
    assert torch.equal(soft_tokens["a"], torch.full((3, 2), 7.0))


def test_an_encoding_that_is_no_longer_needed_is_stopped(encoder: Encoder) -> None:
    soft_tokens = _soft_tokens(encoder)
    soft_tokens.retain({"a"})
    soft_tokens.advance("a", _medium("a"), 1)
    assert encoder.held() is not None
    soft_tokens.retain(())
    gc.collect()
    assert encoder.held() is None
    _encode(soft_tokens, "a")
    assert encoder.begun == ["a", "a"]


def test_a_failed_encoding_can_be_repeated_and_leaves_nothing(encoder: Encoder) -> None:
    soft_tokens = _soft_tokens(encoder)
    soft_tokens.retain({"bad"})
    for _ in range(2):
        with pytest.raises(RuntimeError, match="choked"):
            soft_tokens.advance("bad", _medium("bad"), 100)
    gc.collect()
    assert encoder.held() is None
    assert "bad" not in soft_tokens
    _encode(soft_tokens, "good")


def test_recently_used_soft_tokens_are_kept_within_the_budget(encoder: Encoder) -> None:
    soft_tokens = _soft_tokens(encoder, 2 * ROW)
    _encode(soft_tokens, "a", "b")
    assert soft_tokens["a"].nbytes == ROW
    _encode(soft_tokens, "c")
    assert [name in soft_tokens for name in "abc"] == [True, False, True]


def test_needed_soft_tokens_are_kept_beyond_the_budget(encoder: Encoder) -> None:
    soft_tokens = _soft_tokens(encoder, 0)
    for name in "abc":
        soft_tokens.retain(set("abc"))
        soft_tokens.advance(name, _medium(name), 100)
    assert all(name in soft_tokens for name in "abc")
    soft_tokens.retain({"b"})
    assert [name in soft_tokens for name in "abc"] == [False, True, False]
    soft_tokens.retain(())
    assert "b" not in soft_tokens


def test_the_time_of_a_chunk_is_that_of_the_fastest_prompt() -> None:
    pace = PrefillPace(512)
    assert pace.chunk_seconds == 0
    pace.add(3, 0.03)
    assert pace.chunk_seconds == pytest.approx(5.12)
    pace.add(256, 0.128)
    pace.add(512, 9.0)  # something else took the cores
    assert pace.chunk_seconds == pytest.approx(0.256)


def _greedy(prompt: Any, **rest: Any) -> EngineRequest:
    return EngineRequest(prompt, EngineSamplingParams(temperature=0.0), 4, **rest)


def _counting(native: Any, monkeypatch: Any, breaks: Media | None = None) -> list[bytes]:
    """What is encoded from here on, one part in each step; one medium breaks at its end."""
    runner, begun = native.recorder.runner, list[bytes]()
    encode = runner._media_encoder._encode

    def noting(media: Media) -> Encoding:
        begun.append(media.digest)
        tokens: Tensor = yield from encode(media)
        if media is breaks:
            raise RuntimeError("choked")
        return tokens

    monkeypatch.setattr(runner, "_media_encoder", MediaEncoder(noting, 10**6, Clock()))
    monkeypatch.setattr(runner, "_pace", PrefillPace(16))
    monkeypatch.setattr(runner, "_clock", Clock())
    return begun


def test_streams_continue_and_short_prompts_start_while_an_image_is_encoded(
    checkpoint: Any, monkeypatch: Any
) -> None:
    native = checkpoint.native(chunk=16)
    begun = _counting(native, monkeypatch)
    stream, short, seen = checkpoint.answer(), checkpoint.answer(), checkpoint.answer()
    native.engine.submit(
        EngineRequest(checkpoint.text(5, 1), EngineSamplingParams(temperature=0.0), 200), stream
    )
    native.engine.step()
    native.engine.submit(_greedy(checkpoint.with_picture(40, 2)), seen)
    native.engine.step()
    native.engine.submit(_greedy(checkpoint.text(5, 3)), short)
    steps = [2, 0]
    while not seen.tokens:
        native.engine.step()
        steps[0] += 1
        steps[1] = steps[1] or bool(short.tokens) * steps[0]
        assert len(stream.tokens) == steps[0], "a token in each step"
    encodes = [plan for plan in native.recorder.plans if plan.encode]
    assert len(encodes) > 5, "a part of the encoder in each"
    assert not any(plan.prefills for plan in encodes)
    assert steps[1] <= 2 + 2, "a prompt of five tokens waits for one part of an encoder"
    assert len(begun) == 1
    native.run()
    assert seen.tokens == checkpoint.native().answers([_greedy(checkpoint.with_picture(40, 2))])[0]


def test_an_image_that_several_want_is_encoded_once_and_for_another_salt_again(
    checkpoint: Any, monkeypatch: Any
) -> None:
    prompts = [checkpoint.with_picture(40, seed, checkpoint.picture(9)) for seed in (71, 72)]
    alone = [checkpoint.native().answers([_greedy(prompt)])[0] for prompt in prompts]
    native = checkpoint.native()
    begun = _counting(native, monkeypatch)
    assert native.answers([_greedy(prompt) for prompt in prompts]) == alone
    assert len(begun) == 1
    for salt, times in (("ward 1", 2), ("ward 1", 2), ("ward 2", 3), (None, 3)):
        assert native.answers([_greedy(prompts[0], cache_salt=salt)]) == alone[:1]
        assert len(begun) == times


def test_nothing_is_reused_with_another_salt(checkpoint: Any) -> None:
    native, prompt = checkpoint.native(), checkpoint.with_picture(40, 71)
    found = []
    for salt in ("ward 1", "ward 2", None, "ward 1", "ward 2", None):
        asked = EngineRequest(prompt, EngineSamplingParams(temperature=0.0), 1, cache_salt=salt)
        (answer,) = native.listened(asked)
        found.append(answer.end.cached_tokens)
    assert found == [0, 0, 0, 39, 39, 39]


def test_a_broken_image_fails_only_the_requests_that_contain_it(checkpoint: Any, monkeypatch: Any) -> None:
    bad, good = checkpoint.picture(1), checkpoint.with_picture(40, 81)
    alone = checkpoint.native().answers([_greedy(good)])[0]
    native = checkpoint.native(slots=6)
    _counting(native, monkeypatch, breaks=bad)
    prompts = [good, checkpoint.with_picture(40, 82, bad), checkpoint.with_picture(50, 83, bad)]
    heard, broken, also = native.listened(*map(_greedy, prompts[:2]), _greedy(prompts[2], n=2))
    assert heard.tokens == alone
    assert "choked" in broken.end.error
    assert ["choked" in step.error for step in also.steps] == [True, True]
    assert native.slots.free == 6


@pytest.mark.parametrize("steps", range(0, 14, 2))
def test_cancelling_while_an_image_is_encoded_leaves_nothing(
    checkpoint: Any, monkeypatch: Any, steps: int
) -> None:
    native = checkpoint.native()
    _counting(native, monkeypatch)
    answer, other = checkpoint.answer(), checkpoint.answer()
    number = native.engine.submit(_greedy(checkpoint.with_picture(40, 5), n=2), answer)
    native.engine.submit(_greedy(checkpoint.with_picture(40, 6)), other)
    for _ in range(steps):
        native.engine.step()
    native.engine.cancel(number)
    native.run()
    assert {step.finish for step in answer.steps if step.last} == {"cancelled"}
    assert other.tokens == checkpoint.native().answers([_greedy(checkpoint.with_picture(40, 6))])[0]
    assert native.slots.free == 4
    assert native.recorder.runner._media_encoder._running is None


def test_the_last_one_cancelled_while_its_image_is_encoded_stops_the_encoder(
    checkpoint: Any, monkeypatch: Any
) -> None:
    native = checkpoint.native()
    _counting(native, monkeypatch)
    number = native.engine.submit(_greedy(checkpoint.with_picture(40, 5)), checkpoint.answer())
    for _ in range(3):
        native.engine.step()
    assert native.recorder.runner._media_encoder._running is not None
    native.engine.cancel(number)
    assert native.engine.step()
    assert native.recorder.runner._media_encoder._running is None
