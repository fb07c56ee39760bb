"""Where audio that is too long for the model is cut: at the quietest place."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FRAME_SECONDS: Final = 0.02
"""The length of a frame, for which one level is computed."""
SILENCE_DB: Final = -100.0
"""The level of digital silence."""
_BLOCK: Final = 3_000  # frames whose levels are computed at once: a minute
_SHORTEST: Final = 5  # of the two last parts, none has less than a fifth of both
_AROUND: Final = (
    10  # frames over which levels are averaged, so that the cut is in a pause and not in a consonant
)

Levels = npt.NDArray[np.float32]


def frame_levels(samples: npt.NDArray[Any], rate: int, full_scale: float) -> Levels:
    """The level of each frame in dB, where 0 is a square wave of full scale; ``[frames]``.

    An incomplete frame at the end counts as a frame. Memory for a minute is needed besides ``samples``.

    Args:
        samples: ``[samples]``; may be mapped from a file.
        rate: samples per second.
        full_scale: the largest value of a sample.
    """
    size = round(rate * FRAME_SECONDS)
    blocks = [
        _levels(samples[start : start + _BLOCK * size].astype(np.float32) / full_scale, size)
        for start in range(0, len(samples), _BLOCK * size)
    ]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _levels(samples: npt.NDArray[np.float32], size: int) -> Levels:
    frames = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    power = np.square(frames).mean(axis=1)
    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (SILENCE_DB / 10))), np.float32)


def quiet_cuts(levels: Levels, most: int, least_share: float) -> Iterator[int]:
    """The frames before which audio is cut, at the quietest places.

    Args:
        levels: of the frames.
        most: frames that a part may have.
        least_share: of ``most``, which every part has at least; the two last parts share what is left.
    """
    least = max(int(most * least_share), 1)
    smooth = np.convolve(levels, np.ones(_AROUND) / _AROUND, "same")
    start = 0
    while (left := len(levels) - start) > most:
        if left > most + least:
            first, last = least, most
        else:  # two parts are left
            first, last = max(left - most, left // _SHORTEST), min(most, left - left // _SHORTEST)
        window = smooth[start + first : start + last + 1]
        start += first + len(window) - 1 - int(np.argmin(window[::-1]))  # the last of several equal ones
        yield start
