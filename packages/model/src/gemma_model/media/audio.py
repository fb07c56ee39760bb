"""Encoded audio → log-mel, with the checkpoint's own feature extractor."""

import hashlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from gemma_model.engine_types import Media
from gemma_wire import InvalidRequest
from gemma_wire.audio_cuts import FRAME_SECONDS, frame_levels, quiet_cuts

FORMATS = ("WAV", "FLAC", "OGG", "MP3")
NOT_SUPPORTED = f"not audio in a supported format: {', '.join(FORMATS)}"
SIGNATURES = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff")
"""The first bytes of such files; libsndfile's parsers of twenty other formats are not exposed."""
LONGEST_SECONDS = 30.0
"""Gemma 3n's own limit for a clip: its extractor drops the rest."""
PADDING_SECONDS = 0.1
"""An encoder may have lengthened audio of the maximum length by this much; it is cut off."""
RATES = range(4_000, 192_001)
MAX_CHANNELS = 8
MAX_AMPLITUDE = 32_768.0
"""Of a sample; full scale is 1. Floats on the scale of 16-bit integers are accepted."""
LEAST_SHARE = 2 / 3
"""Of the maximum length, which every clip but the last two has: each costs the same number of tokens."""
BLOCK = 65_536  # frames that are decoded at once
PAD_MULTIPLE = 128  # samples: the extractor pads audio to a multiple of these
UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's value for a FLAC file without a length; it cannot read those
PIPED = 0x7FFF_0000
"""A RIFF size from here on, or 0, is written by programs that stream and cannot fill it in later."""

Samples = npt.NDArray[np.float32]


class AudioDecoder:
    """Decodes, mixes and resamples audio; safe to call from several threads.

    Args:
        folder: of the checkpoint; its ``preprocessor_config.json`` or ``processor_config.json`` is used,
            and its ``config.json`` says how long audio fits the soft tokens.
        max_seconds: of one file; checked in the header, and again while decoding.
    """

    def __init__(self, folder: Path, max_seconds: float) -> None:
        from transformers import AutoFeatureExtractor, Gemma3nConfig  # noqa: PLC0415 - as in images.py

        self._extractor: Any = AutoFeatureExtractor.from_pretrained(folder)
        self._rate = int(self._extractor.sampling_rate)
        config: Any = Gemma3nConfig.from_pretrained(folder)
        self.clip_seconds = min(LONGEST_SECONDS, _most_samples(config, self._extractor) / self._rate)
        """Maximum length of a clip. A longer file is cut into several."""
        self._max_seconds = max_seconds
        self._clip_tokens = int(config.audio_soft_tokens_per_image)

    def decode(self, data: bytes, field: str, max_clips: int) -> list[Media]:
        """Log-mel ``[frames, bins]`` fp32 of a file in one of ``FORMATS``, all channels mixed into one.

        A file that is longer than a clip is cut at its quietest places. The result for each clip equals that
        of the checkpoint's extractor for this clip alone: no frame is padding.

        Args:
            data: the file.
            field: its name in errors, such as ``audio[0]``.
            max_clips: into which it may be cut.

        Raises:
            InvalidRequest: it is not audio, is truncated, or exceeds a limit.
        """
        if not data.startswith(SIGNATURES):
            raise InvalidRequest(f"is {NOT_SUPPORTED}", field)
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as file:
                self._check_header(file, data, field, max_clips)
                samples, rate = self._samples(file, field, max_clips), file.samplerate
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip().rstrip(".")
            raise InvalidRequest(f"is truncated, damaged, or {NOT_SUPPORTED} ({reason})", field) from None
        clips = self._cut(self._resample(samples, rate))
        self._check_clips(len(samples) / rate, len(clips), field, max_clips)
        features = [self._features(clip, field) for clip in clips]
        return [Media("audio", hashlib.sha256(each.tobytes()).digest(), each) for each in features]

    def _cut(self, samples: Samples) -> list[Samples]:
        if len(samples) <= (self.clip_seconds + PADDING_SECONDS) * self._rate:
            return [samples]
        levels, most = frame_levels(samples, self._rate, 1.0), int(self.clip_seconds / FRAME_SECONDS)
        frame = round(self._rate * FRAME_SECONDS)
        cuts = [cut * frame for cut in quiet_cuts(levels, most, LEAST_SHARE)]
        return np.split(samples, cuts)

    def _check_header(self, file: Any, data: bytes, field: str, max_clips: int) -> None:
        if file.format.removesuffix("EX") not in FORMATS:  # WAVEX is WAV with a longer header
            raise InvalidRequest(f"is {NOT_SUPPORTED}", field)
        if file.channels > MAX_CHANNELS:
            raise InvalidRequest(f"has {file.channels} channels; the limit is {MAX_CHANNELS}", field)
        if file.samplerate not in RATES:
            limits = f"the limits are {RATES.start:,} and {RATES.stop - 1:,}"
            raise InvalidRequest(f"has {file.samplerate:,} samples per second; {limits}", field)
        if file.frames == UNKNOWN_LENGTH:
            raise InvalidRequest("has no length in its header", field)
        self._check_length(file.frames / file.samplerate, field, max_clips)
        size = int.from_bytes(data[4:8], "little")
        if data.startswith(b"RIFF") and 0 < size < PIPED and size + 8 > len(data) + 1:  # a pad byte may lack
            raise InvalidRequest(f"is truncated: it has {len(data):,} of {size + 8:,} bytes", field)

    def _check_length(self, seconds: float, field: str, max_clips: int) -> None:
        if seconds > self._max_seconds + PADDING_SECONDS:
            limit = f"the limit is {self._max_seconds:g} seconds"
            raise InvalidRequest(f"is {seconds:,.2f} seconds long; {limit}", field)
        least = math.ceil((seconds - PADDING_SECONDS) / self.clip_seconds)
        self._check_clips(seconds, least, field, max_clips)

    def _check_clips(self, seconds: float, clips: int, field: str, max_clips: int) -> None:
        if clips > max_clips:
            tokens = clips * self._clip_tokens
            needed = f"{clips:,} clips of at most {self.clip_seconds:g} seconds, {tokens:,} tokens"
            limit = f"the limit for the rest of this request is {max_clips}"
            raise InvalidRequest(f"is {seconds:,.2f} seconds long, which needs {needed}; {limit}", field)

    def _samples(self, file: Any, field: str, max_clips: int) -> Samples:
        """The mean of all channels, ``[samples]``; decoding stops at the limit, whatever the header says."""
        blocks: list[Samples] = []
        length = 0
        for block in _blocks(file):
            length += len(block)
            self._check_length(length / file.samplerate, field, max_clips)
            _check_amplitude(block, field)
            blocks.append(block.T.mean(axis=0))
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    def _resample(self, samples: Samples, rate: int) -> Samples:
        """Like transformers' ``load_audio`` and librosa."""
        if rate == self._rate or not len(samples):
            return samples

        length = math.ceil(len(samples) * self._rate / rate)
        resampled = soxr.resample(samples, rate, self._rate, quality="soxr_hq")[:length]
        return np.pad(resampled, (0, length - len(resampled)))

    def _features(self, samples: Samples, field: str) -> Samples:
        shortest = self._extractor.frame_length
        if len(samples) < shortest:
            least = f"at least {shortest} ({shortest / self._rate:g} seconds) are required"
            given = f"{len(samples)} samples ({len(samples) / self._rate:g} seconds)"
            raise InvalidRequest(f"has {given} at {self._rate:,} samples per second; {least}", field)
        longest = int(min(self.clip_seconds, self._max_seconds) * self._rate)
        # The extractor reads one sample beyond each window: for a clip of one window, silence.
        samples = np.pad(samples, (0, max(0, shortest + 1 - len(samples))))
        made = self._extractor(samples[:longest], max_length=longest)
        assert made["input_features_mask"][0].all(), "a single clip is not padded by a frame"
        features: Samples = np.ascontiguousarray(made["input_features"][0], dtype=np.float32)
        if not np.isfinite(features).all():
            raise InvalidRequest("has features that are not finite numbers", field)
        return features


def _check_amplitude(samples: Samples, field: str) -> None:
    """To be checked before sums that could overflow."""
    largest = float(np.abs(samples).max())
    if not np.isfinite(largest):
        raise InvalidRequest("has samples that are not finite numbers", field)
    if largest > MAX_AMPLITUDE:
        limit = f"the limit is {MAX_AMPLITUDE:,.0f}, and full scale is 1"
        raise InvalidRequest(f"has a sample of {largest:.3g}; {limit}", field)


def _blocks(file: Any) -> Iterator[Samples]:
    """``[samples, channels]`` in blocks, so that many channels at a high rate are never in memory at once."""
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        yield block


def _most_samples(config: Any, extractor: Any) -> int:
    """Maximum number of samples that fit the soft tokens of one clip."""
    audio = config.audio_config
    strides = math.prod(time for time, _ in audio.sscp_conv_stride_size)
    frames = config.audio_soft_tokens_per_image * strides * audio.conf_reduction_factor
    samples = int(frames * extractor.hop_length + extractor.frame_length)
    return samples - samples % PAD_MULTIPLE
