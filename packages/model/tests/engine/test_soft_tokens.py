"""Media run through their towers together, once each, and one that breaks breaks alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gemma_model.engine.soft_tokens import AT_ONCE, SoftTokens
from gemma_model.protocol import Generation, Media, Modality, Sampling

ROW = 4 * 3 * 2  # bytes of what the tower below makes of a medium


class Tower:
    """Makes ``[media, 3, 2]`` of media, and remembers what it was given."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []

    def __call__(self, media: Sequence[Media]) -> Tensor:
        self.runs.append([medium.digest.decode() for medium in media])
        assert len({(medium.modality, medium.features.shape) for medium in media}) == 1
        if any(medium.digest.startswith(b"bad") for medium in media):
            raise RuntimeError("choked")
        return torch.stack([torch.full((3, 2), float(medium.features.flat[0])) for medium in media])


def _medium(
    name: str, value: float = 0, shape: tuple[int, ...] = (2,), modality: Modality = "image"
) -> Media:
    return Media(modality, name.encode(), np.full(shape, value, np.float32))


def _tokens(found: Mapping[Media, Tensor | Exception], medium: Media) -> Tensor:
    tokens = found[medium]
    assert isinstance(tokens, Tensor)
    return tokens


@pytest.fixture
def tower() -> Tower:
    return Tower()


def test_all_that_are_due_run_at_once_and_get_their_own(tower: Tower) -> None:
    media = [_medium(f"{i}", i) for i in range(AT_ONCE)]
    found = SoftTokens(tower, 10**6).of(media)
    assert len(tower.runs) == 1
    for i, medium in enumerate(media):
        assert torch.equal(_tokens(found, medium), torch.full((3, 2), float(i)))


def test_a_run_has_a_limit(tower: Tower) -> None:
    SoftTokens(tower, 10**6).of([_medium(f"{i}") for i in range(2 * AT_ONCE + 1)])
    assert [len(run) for run in tower.runs] == [AT_ONCE, AT_ONCE, 1]


def test_modalities_and_lengths_run_apart(tower: Tower) -> None:
    sounds = [_medium(f"sound {n}", shape=(n, 4), modality="audio") for n in (7, 9)]
    again = _medium("another", shape=(7, 4), modality="audio")
    SoftTokens(tower, 10**6).of([sounds[0], _medium("picture"), sounds[1], again])
    assert tower.runs == [["sound 7", "another"], ["picture"], ["sound 9"]]


def test_equal_media_are_run_once(tower: Tower) -> None:
    soft_tokens = SoftTokens(tower, 10**6)
    found = soft_tokens.of([_medium("a"), _medium("b"), _medium("a")])
    assert len(found) == 2
    soft_tokens.of([_medium("c"), _medium("b")])
    assert tower.runs == [["a", "b"], ["c"]]


def test_a_sound_is_no_picture_of_the_same_digest(tower: Tower) -> None:
    found = SoftTokens(tower, 10**6).of([_medium("a", 1), _medium("a", 2, modality="audio")])
    assert [float(_tokens(found, medium)[0, 0]) for medium in found] == [1, 2]


def test_one_that_breaks_breaks_alone(tower: Tower) -> None:
    soft_tokens = SoftTokens(tower, 10**6)
    good, bad, also_good = _medium("good", 1), _medium("bad"), _medium("also good", 2)
    found = soft_tokens.of([good, bad, also_good])
    assert isinstance(found[bad], RuntimeError)
    assert float(_tokens(found, good)[0, 0]) == 1
    assert float(_tokens(found, also_good)[0, 0]) == 2
    tower.runs.clear()
    assert isinstance(soft_tokens.of([bad, good])[bad], RuntimeError)
    assert tower.runs == [["bad"]]


def test_what_was_used_last_is_kept_within_the_budget(tower: Tower) -> None:
    soft_tokens = SoftTokens(tower, 2 * ROW)
    a, b, c = _medium("a"), _medium("b"), _medium("c")
    soft_tokens.of([a, b])
    soft_tokens.of([a])
    soft_tokens.of([c])  # b goes
    tower.runs.clear()
    soft_tokens.of([a, c])
    soft_tokens.of([b])
    assert tower.runs == [["b"]]


def test_more_than_the_budget_holds_is_there_for_its_step(tower: Tower) -> None:
    soft_tokens = SoftTokens(tower, 0)
    media = [_medium(f"{i}", i) for i in range(3)]
    assert all(isinstance(tokens, Tensor) for tokens in soft_tokens.of(media).values())
    tower.runs.clear()
    soft_tokens.of([media[2]])  # the last one may go on in the next chunk
    assert tower.runs == []


def test_a_kept_one_does_not_keep_its_neighbours_in_memory(tower: Tower) -> None:
    found = SoftTokens(tower, 10**6).of([_medium("a"), _medium("b")])
    assert {_tokens(found, medium).untyped_storage().nbytes() for medium in found} == {ROW}


def _greedy(prompt: Any) -> Generation:
    return Generation(prompt, Sampling(temperature=0.0), 4)


def test_pictures_of_two_requests_are_seen_in_one_run(checkpoint: Any, monkeypatch: Any) -> None:
    prompts = [checkpoint.with_picture(40, seed) for seed in (71, 72)]
    alone = [checkpoint.native().answers([_greedy(prompt)])[0] for prompt in prompts]
    encode, runs = checkpoint.loaded.runner._soft_tokens._encode, []

    def noting(media: Sequence[Media]) -> Tensor:
        runs.append(len(media))
        tokens: Tensor = encode(media)
        return tokens

    native = checkpoint.native(chunk=100)
    monkeypatch.setattr(native.recorder.runner, "_soft_tokens", SoftTokens(noting, 10**6))
    assert native.answers([_greedy(prompt) for prompt in prompts]) == alone
    assert runs == [2]


def test_a_broken_picture_in_a_run_of_several_fails_alone(checkpoint: Any, monkeypatch: Any) -> None:
    bad = Media("image", b"bad", checkpoint.picture(1).features)
    prompts = [checkpoint.with_picture(40, 81), checkpoint.with_picture(40, 82, bad)]
    alone = checkpoint.native().answers([_greedy(prompts[0])])[0]
    encode = checkpoint.loaded.runner._soft_tokens._encode

    def choking(media: Sequence[Media]) -> Tensor:
        if bad in media:
            raise RuntimeError("choked")
        tokens: Tensor = encode(media)
        return tokens

    native = checkpoint.native(chunk=100)
    monkeypatch.setattr(native.recorder.runner, "_soft_tokens", SoftTokens(choking, 10**6))
    good, broken = native.listened(*map(_greedy, prompts))
    assert good.tokens == alone
    assert "choked" in broken.end.error
    assert native.slots.free == 4
