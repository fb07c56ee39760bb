"""Sounds of a few kinds, and questions about them.

``make_sound`` generates a ``Sound`` and one recording of it, with random loudness, timbre and background. The
results depend on the given random generators only.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Kind = Literal["low tone", "high tone", "rising tone", "falling tone", "beeps", "noise", "silence"]
Wave = NDArray[np.float32]
"""Samples in [-1, 1], mono."""

RATE = 16_000
"""Samples per second."""
SHORTEST, LONGEST = 0.6, 4.0
"""Seconds."""
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_BEEPS = 5
NUMBERS = ("no", "one", "two", "three", "four", "five")

_LOW, _HIGH, _BEEP = (100.0, 350.0), (1_200.0, 4_000.0), (400.0, 2_500.0)  # Hz
_GLIDE = (120.0, 4_000.0)
_LEAST_OCTAVES = 1.5


@dataclass(frozen=True)
class Sound:
    """A sound.

    Args:
        kind: of the sound.
        beeps: number of beeps; 0 for all other kinds.
    """

    kind: Kind
    beeps: int = 0

    @property
    def name(self) -> str:
        """Name in answers: ``a low tone``, ``three beeps``, ``noise``."""
        if self.kind == "beeps":
            return f"{NUMBERS[self.beeps]} beep{'s' if self.beeps > 1 else ''}"
        return self.kind if self.kind in ("noise", "silence") else f"a {self.kind}"


def make_sound(rng: Generator, kind: Kind | None = None) -> tuple[Sound, Wave]:
    """A sound and a recording of it, 0.6 to 4 seconds at 16 kHz.

    Args:
        rng: source of all random choices.
        kind: of the sound; random if ``None``. Beeps are more frequent: there are five numbers of them.
    """
    kind = kind or KINDS[int(rng.choice(len(KINDS), p=(0.13, 0.13, 0.13, 0.13, 0.28, 0.1, 0.1)))]
    sound = Sound(kind, int(rng.integers(1, MOST_BEEPS + 1)) if kind == "beeps" else 0)
    if kind == "silence":
        return sound, _silence(rng)
    wave = _beeps(rng, sound.beeps) if kind == "beeps" else _MAKERS[kind](rng)
    return sound, _record(rng, wave, background=kind != "noise")


def _seconds(rng: Generator, least: float, most: float) -> int:
    """A random length in samples, between two durations in seconds."""
    return round(RATE * rng.uniform(least, most))


def _record(rng: Generator, wave: NDArray[np.float64], background: bool) -> Wave:
    """Add silence before and after, random loudness, and background noise."""
    before, after = _seconds(rng, 0.0, 0.45), _seconds(rng, 0.05, 0.45)
    after = max(after, round(RATE * SHORTEST) - before - len(wave))
    wave = np.pad(wave / np.abs(wave).max(), (before, after))[: round(RATE * LONGEST)]
    if background and rng.random() < 0.6:
        wave = wave + _noise(rng, len(wave)) * np.exp(rng.uniform(np.log(0.001), np.log(0.03)))
    loudness = np.exp(rng.uniform(np.log(0.1), np.log(0.95)))
    return np.asarray(wave / np.abs(wave).max() * loudness, np.float32)


def _silence(rng: Generator) -> Wave:
    """Zeros, or inaudible noise."""
    length = _seconds(rng, SHORTEST, LONGEST)
    faint = 0.0 if rng.random() < 0.4 else np.exp(rng.uniform(np.log(1e-5), np.log(1e-3)))
    return (_noise(rng, length) * faint).astype(np.float32)


def _noise(rng: Generator, length: int) -> NDArray[np.float64]:
    """White or pink noise with peak 1."""
    wave = rng.standard_normal(length)
    if rng.random() < 0.5:
        spectrum = np.fft.rfft(wave)
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20 * length / RATE))  # flat below 20 Hz
        wave = np.fft.irfft(spectrum, length)
    return np.asarray(wave / np.abs(wave).max())


def _burst(rng: Generator) -> NDArray[np.float64]:
    """Noise of 0.5 to 3 seconds."""
    return _shape(rng, _noise(rng, _seconds(rng, 0.5, 3.0)))


def _timbre(rng: Generator) -> NDArray[np.float64]:
    """The amplitudes of the harmonics: a sine, something like a square wave, or a few overtones."""
    way = rng.random()
    if way < 0.4:
        return np.array([1.0])
    order = np.arange(1, 8)
    if way < 0.6:
        return np.where(order % 2 == 1, 1 / order, 0.0)
    return np.asarray(rng.uniform(0.3, 1.0) ** np.arange(len(order)) / order)


def _tone(rng: Generator, hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    """A tone with a frequency for each sample; without harmonics above the Nyquist frequency."""
    phase = 2 * np.pi * np.cumsum(hertz) / RATE + rng.uniform(0, 2 * np.pi)
    wave = np.zeros(len(hertz))
    for order, amplitude in enumerate(_timbre(rng), start=1):
        if order == 1 or order * hertz.max() < RATE / 2 - 200:
            wave += amplitude * np.sin(order * phase)
    return wave


def _shape(rng: Generator, wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add an attack and a decay to avoid clicks."""
    attack, decay = (min(_seconds(rng, 0.005, most), len(wave) // 3) for most in (0.08, 0.2))
    envelope = np.ones(len(wave))
    envelope[:attack] = np.linspace(0, 1, attack)
    envelope[len(wave) - decay :] = np.linspace(1, 0, decay)
    return wave * envelope


def _pitch(rng: Generator, band: tuple[float, float]) -> float:
    """A random frequency, log-uniform in the band."""
    return float(np.exp(rng.uniform(*np.log(band))))


def _steady(band: tuple[float, float]) -> Callable[[Generator], NDArray[np.float64]]:
    return lambda rng: _shape(rng, _tone(rng, np.full(_seconds(rng, 0.5, 3.0), _pitch(rng, band))))


def _glide(rng: Generator, rising: bool) -> NDArray[np.float64]:
    """An exponential glide over at least 1.5 octaves."""
    low, high = np.log2(_GLIDE)
    octaves = rng.uniform(_LEAST_OCTAVES, high - low)
    start = rng.uniform(low, high - octaves)
    rise = np.linspace(start, start + octaves, _seconds(rng, 0.6, 3.0))
    return _shape(rng, _tone(rng, 2.0 ** (rise if rising else rise[::-1])))


def _beeps(rng: Generator, count: int) -> NDArray[np.float64]:
    """Short tones of one pitch with equal gaps."""
    length, gap, pitch = _seconds(rng, 0.08, 0.3), _seconds(rng, 0.12, 0.4), _pitch(rng, _BEEP)
    beep = _shape(rng, _tone(rng, np.full(length, pitch)))
    pieces = [beep] + [piece for _ in range(count - 1) for piece in (np.zeros(gap), beep)]
    return np.concatenate(pieces)


_MAKERS: dict[Kind, Callable[[Generator], NDArray[np.float64]]] = {
    "low tone": _steady(_LOW),
    "high tone": _steady(_HIGH),
    "rising tone": lambda rng: _glide(rng, rising=True),
    "falling tone": lambda rng: _glide(rng, rising=False),
    "noise": _burst,
}

QUESTIONS = (
    "What do you hear?", "What do you hear in this sound?", "What is this sound?", "Describe the sound.",
    "What is in this recording?", "What can you hear?", "Tell me what you hear.",
    "What kind of sound is this?", "Describe what you hear.", "What is in the audio?",
    "What does the recording contain?", "Describe this audio.", "Which sound is this?", "Listen. What is it?",
    "What sound do you hear?", "What did you hear?",
)  # fmt: skip
"""Wordings of "What do you hear?"."""
_HOW_MANY = (
    "How many beeps are there?", "How many beeps do you hear?", "Count the beeps.",
    "How many beeps are in this sound?", "How many times does it beep?", "What is the number of beeps?",
    "How many beeps can you hear?",
)  # fmt: skip
_ANY_BEEP = (
    "Is there a beep?", "Do you hear a beep?", "Are there any beeps?", "Does it beep?",
    "Are there beeps in the sound?", "Can you hear a beep?",
)  # fmt: skip
_PITCH = (
    "Is the tone high or low?", "Is it a high or a low tone?", "Is the pitch high or low?",
    "Is the sound low or high?", "How high is the tone: low or high?",
)  # fmt: skip
_DIRECTION = (
    "Is it rising or falling?", "Is the tone rising or falling?", "Does the tone rise or fall?",
    "Does the pitch go up or down?", "In which direction does the tone go?",
)  # fmt: skip
_SILENT = (
    "Is it silent?", "Is the sound silent?", "Is the recording silent?", "Is it only silence?",
    "Is the audio silent?",
)  # fmt: skip
_ANYTHING = (
    "Is there any sound?", "Do you hear anything?", "Can you hear something?", "Is there anything to hear?",
    "Do you hear a sound?",
)  # fmt: skip
_NOISE = ("Is it noise?", "Is this noise?", "Is the sound just noise?", "Do you hear only noise?")
_IS_IT = ("Is it {}?", "Do you hear {}?", "Is this {}?", "Is the sound {}?")
_TONES = ("a low tone", "a high tone", "a rising tone", "a falling tone")

ALL_QUESTIONS = (
    *QUESTIONS, *_HOW_MANY, *_ANY_BEEP, *_PITCH, *_DIRECTION, *_SILENT, *_ANYTHING, *_NOISE,
    *(wording.format(tone) for wording in _IS_IT for tone in _TONES),
)  # fmt: skip
"""Whatever is asked about a sound."""


def ask(rng: random.Random, sound: Sound) -> list[tuple[str, str]]:
    """All questions about a sound with their answers, each in a random wording."""
    pairs = [
        (QUESTIONS, f"I hear {sound.name}."),
        (_HOW_MANY, f"There {'is' if sound.beeps == 1 else 'are'} {_number_of_beeps(sound)}."),
        (_ANY_BEEP, _yes(sound.kind == "beeps")),
        (_SILENT, _yes(sound.kind == "silence")),
        (_ANYTHING, _yes(sound.kind != "silence")),
        (_NOISE, _yes(sound.kind == "noise")),
    ]
    if sound.kind in ("low tone", "high tone"):
        pairs.append((_PITCH, f"It is {sound.kind.split()[0]}."))
    if sound.kind in ("rising tone", "falling tone"):
        pairs.append((_DIRECTION, f"It is {sound.kind.split()[0]}."))
    tone = sound.name if sound.name in _TONES and rng.random() < 0.5 else rng.choice(_TONES)
    pairs.append((tuple(wording.format(tone) for wording in _IS_IT), _yes(tone == sound.name)))
    return [(rng.choice(wordings), answer) for wordings, answer in pairs]


def _number_of_beeps(sound: Sound) -> str:
    return sound.name if sound.kind == "beeps" else "no beeps"


def _yes(truth: bool) -> str:
    return "Yes." if truth else "No."
