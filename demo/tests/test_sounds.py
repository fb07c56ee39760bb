"""The generator of sounds is deterministic, and recordings match their descriptions."""

import random

import numpy as np
import pytest
from demo.sounds import KINDS, LONGEST, MOST_BEEPS, QUESTIONS, RATE, SHORTEST, Sound, Wave, ask, make_sound

TONES = [Sound(kind) for kind in KINDS if kind != "beeps"]
EVERY = [*TONES, *(Sound("beeps", count + 1) for count in range(MOST_BEEPS))]


@pytest.fixture(scope="module")
def recordings() -> list[tuple[Sound, Wave]]:
    rng = np.random.default_rng(0)
    return [make_sound(rng) for _ in range(250)]


def loudness(wave: Wave) -> Wave:
    """The level of each frame of 20 ms, relative to the loudest frame."""
    frames = wave[: len(wave) // 320 * 320].reshape(-1, 320)
    levels = np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1))
    return np.asarray(levels / levels.max(), np.float32)


def peaks(wave: Wave, parts: int) -> list[float]:
    """The strongest frequency in each part of the audible samples, in Hz."""
    heard = np.flatnonzero(np.repeat(loudness(wave) > 0.3, 320))
    pieces = np.array_split(wave[heard[0] : heard[-1]], parts)
    return [peak(piece) for piece in pieces]


def peak(piece: Wave) -> float:
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece))))
    return float(spectrum.argmax() * RATE / len(piece))


def test_same_seed_same_sound() -> None:
    (one, wave), (other, again) = (make_sound(np.random.default_rng(5)) for _ in range(2))
    assert one == other
    assert np.array_equal(wave, again)


def test_every_sound_is_drawn(recordings: list[tuple[Sound, Wave]]) -> None:
    assert {sound for sound, _ in recordings} == set(EVERY)


def test_waves_are_well_formed(recordings: list[tuple[Sound, Wave]]) -> None:
    for sound, wave in recordings:
        assert wave.dtype == np.float32
        assert wave.ndim == 1
        assert SHORTEST <= len(wave) / RATE <= LONGEST
        assert np.isfinite(wave).all()
        peak = float(np.abs(wave).max())
        assert peak <= 0.001 if sound.kind == "silence" else 0.09 < peak <= 0.951


def test_recordings_have_the_number_of_beeps(recordings: list[tuple[Sound, Wave]]) -> None:
    for sound, wave in recordings:
        if sound.kind == "beeps":
            loud = loudness(wave) > 0.15
            assert int((loud[1:] & ~loud[:-1]).sum() + loud[0]) == sound.beeps


def test_pitches(recordings: list[tuple[Sound, Wave]]) -> None:
    for sound, wave in recordings:
        if sound.kind == "low tone":
            assert 95 <= peaks(wave, 1)[0] <= 360
        if sound.kind == "high tone":
            assert 1_190 <= peaks(wave, 1)[0] <= 4_010
        if sound.kind in ("rising tone", "falling tone"):
            first, *_, last = peaks(wave, 8)
            assert last > 1.8 * first if sound.kind == "rising tone" else first > 1.8 * last


@pytest.mark.parametrize("sound", EVERY, ids=lambda sound: sound.name)
def test_questions(sound: Sound) -> None:
    rng = random.Random(2)
    told: dict[str, str] = {}
    for _ in range(200):
        pairs = ask(rng, sound)
        assert len(pairs) >= 3
        for question, answer in pairs:
            assert told.setdefault(question, answer) == answer
    assert all(told[question] == f"I hear {sound.name}." for question in QUESTIONS)


@pytest.mark.parametrize(
    ("sound", "question", "answer"),
    [
        (Sound("beeps", 3), "What do you hear?", "I hear three beeps."),
        (Sound("beeps", 1), "How many beeps are there?", "There is one beep."),
        (Sound("beeps", 2), "Is there a beep?", "Yes."),
        (Sound("noise"), "How many beeps are there?", "There are no beeps."),
        (Sound("noise"), "What do you hear?", "I hear noise."),
        (Sound("silence"), "Is it silent?", "Yes."),
        (Sound("silence"), "Do you hear anything?", "No."),
        (Sound("low tone"), "Is the tone high or low?", "It is low."),
        (Sound("rising tone"), "Is it rising or falling?", "It is rising."),
        (Sound("rising tone"), "Is it a falling tone?", "No."),
    ],
)
def test_answers(sound: Sound, question: str, answer: str) -> None:
    rng = random.Random(0)
    assert answer == dict(pair for _ in range(400) for pair in ask(rng, sound))[question]
