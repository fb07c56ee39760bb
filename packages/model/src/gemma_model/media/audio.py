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

FORMATS = ("WAV", "FLAC", "OGG", "MP3")
NOT_SUPPORTED = f"not audio in a supported format: {', '.join(FORMATS)}"
SIGNATURES = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff")
"""The first bytes of such files; libsndfile's parsers of twenty other formats are not exposed."""
LONGEST_SECONDS = 30.0
"""Gemma 3n's own limit: its extractor drops the rest."""
PADDING_SECONDS = 0.1
"""An encoder may have lengthened audio of the maximum length by this much; it is cut off."""
RATES = range(4_000, 192_001)
MAX_CHANNELS = 8
MAX_AMPLITUDE = 32_768.0
"""Of a sample; full scale is 1. Floats on the scale of 16-bit integers are accepted."""
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
        max_seconds: of one clip; checked in the header, and again while decoding.
    """

    def __init__(self, folder: Path, max_seconds: float) -> None:
        from transformers import AutoFeatureExtractor, Gemma3nConfig  # noqa: PLC0415 - as in images.py

        self._extractor: Any = AutoFeatureExtractor.from_pretrained(folder)
        self._rate = int(self._extractor.sampling_rate)
        fits = _most_samples(Gemma3nConfig.from_pretrained(folder), self._extractor) / self._rate
        self.max_seconds = min(max_seconds, LONGEST_SECONDS, fits)
        """Maximum length of a clip."""

    def decode(self, data: bytes, field: str) -> Media:
        """Log-mel ``[frames, bins]`` fp32 of a file in one of ``FORMATS``, all channels mixed into one.

        It equals the result of the checkpoint's extractor for this clip alone: no frame is padding.

        Args:
            data: the file.
            field: its name in errors, such as ``audio[0]``.

        Raises:
            InvalidRequest: it is not audio, is truncated, or exceeds a limit.
        """
        if not data.startswith(SIGNATURES):
            raise InvalidRequest(f"is {NOT_SUPPORTED}", field)
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as file:
                self._check_header(file, data, field)
                samples, rate = self._samples(file, field), file.samplerate
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip().rstrip(".")
            raise InvalidRequest(f"is truncated, damaged, or {NOT_SUPPORTED} ({reason})", field) from None
        features = self._features(self._resample(samples, rate), field)
        return Media("audio", hashlib.sha256(features.tobytes()).digest(), features)

    def _check_header(self, file: Any, data: bytes, field: str) -> None:
        if file.format.removesuffix("EX") not in FORMATS:  # WAVEX is WAV with a longer header
            raise InvalidRequest(f"is {NOT_SUPPORTED}", field)
        if file.channels > MAX_CHANNELS:
            raise InvalidRequest(f"has {file.channels} channels; the limit is {MAX_CHANNELS}", field)
        if file.samplerate not in RATES:
            limits = f"the limits are {RATES.start:,} and {RATES.stop - 1:,}"
            raise InvalidRequest(f"has {file.samplerate:,} samples per second; {limits}", field)
        if file.frames == UNKNOWN_LENGTH:
            raise InvalidRequest("has no length in its header", field)
        self._check_length(file.frames / file.samplerate, field)
        size = int.from_bytes(data[4:8], "little")
        if data.startswith(b"RIFF") and 0 < size < PIPED and size + 8 > len(data) + 1:  # a pad byte may lack
            raise InvalidRequest(f"is truncated: it has {len(data):,} of {size + 8:,} bytes", field)

    def _check_length(self, seconds: float, field: str) -> None:
        if seconds > self.max_seconds + PADDING_SECONDS:
            limit = f"the limit is {self.max_seconds:g} seconds"
            raise InvalidRequest(f"is {seconds:,.2f} seconds long; {limit}", field)

    def _samples(self, file: Any, field: str) -> Samples:
        """The mean of all channels, ``[samples]``; decoding stops at the limit, whatever the header says."""
        blocks: list[Samples] = []
        length = 0
        for block in _blocks(file):
            length += len(block)
            self._check_length(length / file.samplerate, field)
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
        longest = int(self.max_seconds * self._rate)
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
