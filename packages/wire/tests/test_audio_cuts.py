import numpy as np
import pytest

from gemma_wire.audio_cuts import SILENCE_DB, frame_levels, quiet_cuts

RATE = 16_000


def test_levels_are_in_decibels_and_an_incomplete_frame_counts() -> None:
    square = np.concatenate([np.full(320, 32767), np.zeros(320), np.full(100, -3277)]).astype(np.int16)
    levels = frame_levels(square, RATE, 2**15)
    assert levels == pytest.approx([0, SILENCE_DB, -25.05], abs=0.01)
    assert len(frame_levels(square[:0], RATE, 2**15)) == 0


def test_the_levels_of_a_long_recording_are_those_of_its_minutes() -> None:
    samples = np.random.default_rng(0).integers(-3000, 3000, 150 * RATE, np.int16)
    levels = frame_levels(samples, RATE, 2**15)
    halves = [frame_levels(half, RATE, 2**15) for half in np.split(samples, [70 * RATE])]
    assert np.allclose(levels, np.concatenate(halves))


@pytest.mark.parametrize("frames", [1, 99, 100, 101, 130, 199, 200, 201, 1000, 12_345])
def test_no_part_is_too_long_or_empty(frames: int) -> None:
    levels = np.random.default_rng(frames).uniform(-60, 0, frames).astype(np.float32)
    for least_share in (1 / 3, 2 / 3):
        parts = np.diff([0, *quiet_cuts(levels, 100, least_share), frames])
        assert parts.max() <= 100
        assert parts.min() >= min(frames, 20)
        assert len(parts) <= -(-frames // int(100 * least_share))


def test_a_cut_is_in_the_longest_silence_within_reach() -> None:
    levels = np.full(250, -10, np.float32)
    levels[50:53] = -90
    levels[70:85] = -80
    (first, second) = quiet_cuts(levels, 100, 1 / 3)
    assert 72 <= first <= 83
    assert second - first == 100


def test_one_frame_at_a_time() -> None:
    assert list(quiet_cuts(np.zeros(3, np.float32), 1, 1 / 3)) == [1, 2]
