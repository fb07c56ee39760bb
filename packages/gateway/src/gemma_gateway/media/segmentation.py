"""Cuts a recording into pieces that the model can hear, at silences.

An energy gate finds where there is speech, or any other sound; docs/decisions/032 has the reasons. In doubt a
frame counts as speech, so that no word is lost: if the background is nearly as loud as the speech, nothing is
left out, and the recording is cut where it is quietest.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from gemma_gateway.media.recording import RATE, Samples
from gemma_wire.audio_cuts import FRAME_SECONDS, Levels, frame_levels, quiet_cuts

QUIETEST_DB: Final = -60.0
"""A frame below this is silence in any recording."""
ABOVE_NOISE_DB: Final = 20.0
"""Speech is louder than the background by this much, times the threshold."""
BELOW_SPEECH_DB: Final = 20.0
"""A frame that is quieter than the loudest by less than this always counts as speech."""
NOISE, SPEECH = 10, 95
"""Percentiles of the levels that are taken as those of the background and of speech."""
SHORTEST_FRAMES: Final = 3
"""Fewer frames are a click, and no speech."""
SHORTEST_PAUSE: Final = 0.3
"""Seconds; a shorter silence is part of the speech around it."""
PREFERRED_SECONDS: Final = 15.0
"""Longer pieces are only made if there is no pause. Subtitles need short pieces."""
PADDING_AFTER: Final = 0.3
"""Seconds of a pause that belong to the piece before it."""


class AudioPiece(NamedTuple):
    """A part of a recording, in samples."""

    start: int
    end: int

    @property
    def seconds(self) -> tuple[float, float]:
        """Start and end in seconds."""
        return round(self.start / RATE, 3), round(self.end / RATE, 3)


@dataclass(frozen=True)
class Segmentation:
    """How a recording is cut; the first three are those of OpenAI's ``server_vad``.

    Args:
        threshold: 0 to 1; higher values need louder speech.
        prefix_padding: seconds before speech that belong to its piece.
        silence_duration: seconds of silence that always end a piece.
        longest: seconds of a piece.
    """

    threshold: float = 0.5
    prefix_padding: float = 0.3
    silence_duration: float = 1.0
    longest: float = 30.0

    def pieces(self, samples: Samples) -> list[AudioPiece]:
        """The pieces with speech, in order. They do not overlap; between them is silence, or nothing."""
        levels = frame_levels(samples, RATE, 2**15)
        regions = self._regions(levels >= self._gate(levels))
        return [
            piece
            for region in self._padded(regions, len(levels))
            for piece in self._split(region, levels, len(samples))
        ]

    def _gate(self, levels: Levels) -> float:
        noise, speech = np.percentile(levels, (NOISE, SPEECH))
        return float(max(QUIETEST_DB, min(noise + ABOVE_NOISE_DB * self.threshold, speech - BELOW_SPEECH_DB)))

    def _regions(self, active: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> list[tuple[int, int]]:
        """Frames from and to which there is speech: runs of active frames, joined across short pauses."""
        edges = np.flatnonzero(np.diff(active, prepend=False, append=False))
        shortest = min(SHORTEST_PAUSE, self.silence_duration)
        runs = _joined(list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)), shortest, math.inf)
        spoken = [(start, end) for start, end in runs if active[start:end].sum() >= SHORTEST_FRAMES]
        room = min(PREFERRED_SECONDS, self.longest) - self.prefix_padding - PADDING_AFTER
        return _joined(spoken, self.silence_duration, room)

    def _padded(self, regions: list[tuple[int, int]], frames: int) -> list[tuple[int, int]]:
        """The regions with some of the silence around them, at most up to the middle between two."""
        middles = [0, *((end + start) // 2 for (_, end), (start, _) in pairwise(regions)), frames]
        before, after = _frames(self.prefix_padding), _frames(PADDING_AFTER)
        return [
            (max(start - before, least), min(end + after, most))
            for (start, end), least, most in zip(regions, middles, middles[1:], strict=False)
        ]

    def _split(self, region: tuple[int, int], levels: Levels, samples: int) -> list[AudioPiece]:
        start, end = region
        most = int(self.longest / FRAME_SECONDS)
        cuts = [start + cut for cut in quiet_cuts(levels[start:end], most, least_share=1 / 3)]
        size = round(RATE * FRAME_SECONDS)
        return [
            AudioPiece(first * size, min(last * size, samples))
            for first, last in pairwise([start, *cuts, end])
        ]


def _frames(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)


def _joined(regions: list[tuple[int, int]], pause: float, longest: float) -> list[tuple[int, int]]:
    """Regions with a shorter pause between them are joined, unless the result is too long; seconds."""
    joined: list[tuple[int, int]] = []
    for start, end in regions:
        if (
            joined
            and (start - joined[-1][1]) * FRAME_SECONDS < pause - 1e-9
            and ((end - joined[-1][0]) * FRAME_SECONDS <= longest)
        ):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
