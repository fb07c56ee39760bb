"""A child process of the gateway: an audio file → 16-bit samples, mono, 16 kHz.

FFmpeg's decoders are large and written in C, and the files are untrusted. So this process has limits on
memory, processor time and output, no secrets in its environment, and opens nothing but two files that it
inherits. The result is one line of JSON on stdout: ``{"samples": …}`` or ``{"error": …, "code": …}``.

    python -m gemma_gateway.media.decode_audio <input fd> <output fd> <maximum seconds>
"""

import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import IO, Any, Final

import av
import av.logging

from gemma_gateway.media.audio_format import HEAD_BYTES, NOT_AUDIO, demuxer, id3_size

RATE: Final = 16_000
"""Samples per second of the output."""
RATES: Final = range(4_000, 192_001)
MAX_CHANNELS: Final = 8
MEMORY_BYTES: Final = 2**30
"""Of address space, most of which are FFmpeg's libraries."""
CPU_SECONDS: Final = 300
"""An hour of AAC needs 6, an hour of 8 channels at 192 kHz about 200."""
PIPED: Final = 0x7FFF_0000
"""A RIFF size from here on, or 0, is written by programs that stream and cannot fill it in later."""
_PADDING: Final = 0.1
"""Seconds that an encoder may have added to audio of the maximum length."""
_MISSING: Final = 0.5
"""Seconds by which the length in a header may exceed the decoded length."""
_BAD_PACKETS: Final = 3
"""So many packets may be damaged, and one in a hundred: tags between MP3 frames count as such."""
_COMPLETE: Final = ("wav", "flac", "mov")
"""Containers whose header has the length of the audio."""


class Refused(Exception):
    """The file is refused: a clause that follows its name, and a code."""

    def __init__(self, reason: str, code: str = "invalid_audio_file") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


def main() -> None:
    """Command line."""
    source, target, max_seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    _limit(int((max_seconds + 1) * RATE) * 2)
    av.logging.set_level(None)
    with os.fdopen(source, "rb") as file, os.fdopen(target, "wb") as output:
        try:
            print(json.dumps({"samples": _decode(file, output, max_seconds)}))
        except Refused as refused:
            print(json.dumps({"error": refused.reason, "code": refused.code}))


def _limit(output_bytes: int) -> None:
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: output_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def _decode(file: IO[bytes], output: IO[bytes], max_seconds: float) -> int:
    """The number of samples that were written."""
    name = _find_demuxer(file)
    try:
        with av.open(file, format=name, metadata_errors="ignore") as container:
            stream = _audio_stream(container, max_seconds)
            samples = _write(container, stream, output, max_seconds)
            _check_complete(name, stream, samples / RATE)
            return samples
    except av.error.FFmpegError as error:
        reason = str(error.strerror).strip().rstrip(".").lower()
        raise Refused(f"is truncated, damaged, or {NOT_AUDIO} ({reason})") from None


def _find_demuxer(file: IO[bytes]) -> str:
    head = file.read(HEAD_BYTES)
    if skipped := id3_size(head):
        file.seek(skipped)
        head = file.read(HEAD_BYTES)
    file.seek(0)
    name = demuxer(head) or ("mp3" if skipped else None)
    if name is None:
        raise Refused(f"is {NOT_AUDIO}")
    if name == "wav":
        _check_riff(int.from_bytes(head[4:8], "little"), os.fstat(file.fileno()).st_size)
    return name


def _check_riff(stated: int, size: int) -> None:
    """FFmpeg reads a truncated WAV file up to its end."""
    if 0 < stated < PIPED and stated + 8 > size + 1:  # a pad byte may be missing
        raise Refused(f"is truncated: it has {size:,} of {stated + 8:,} bytes")


def _audio_stream(container: Any, max_seconds: float) -> Any:
    """The first audio stream, if its header is within the limits."""
    if not container.streams.audio:
        raise Refused("has no audio")
    stream = container.streams.audio[0]
    channels, rate = stream.codec_context.channels, stream.codec_context.sample_rate
    if not 1 <= channels <= MAX_CHANNELS:
        raise Refused(f"has {channels} channels; the limit is {MAX_CHANNELS}")
    if rate not in RATES:
        limits = f"the limits are {RATES.start:,} and {RATES.stop - 1:,}"
        raise Refused(f"has {rate:,} samples per second; {limits}")
    if (seconds := _declared(stream)) is not None:
        _check_length(seconds, max_seconds)
    stream.codec_context.thread_count = 1
    return stream


def _declared(stream: Any) -> float | None:
    """The length in the header, in seconds."""
    return float(stream.duration * stream.time_base) if stream.duration else None


def _check_length(seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds + _PADDING:
        raise Refused(f"is longer than the limit of {max_seconds:,g} seconds", "audio_too_long")


def _write(container: Any, stream: Any, output: IO[bytes], max_seconds: float) -> int:
    """Decodes, mixes and resamples up to the limit, whatever the header says; the number of samples."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    samples = 0
    for frame in _frames(container, stream):
        for piece in resampler.resample(frame):
            output.write(memoryview(piece.planes[0])[: piece.samples * 2])
            samples += piece.samples
        _check_length(samples / RATE, max_seconds)
    return samples


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """The decoded frames, then ``None``, for which a resampler returns what it still holds."""
    packets = damaged = decoded = 0
    for packet in container.demux(stream):
        packets += 1
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            damaged += 1
            continue
        decoded += len(frames)
        yield from frames
    if damaged > _BAD_PACKETS + packets // 100 or (damaged and not decoded):
        raise Refused(f"is damaged: {damaged:,} of its {packets:,} packets cannot be decoded")
    if decoded:
        yield None


def _check_complete(name: str, stream: Any, seconds: float) -> None:
    declared = _declared(stream)
    if name in _COMPLETE and declared is not None and declared - seconds > _MISSING:
        raise Refused(f"is truncated: it has {seconds:,.1f} of {declared:,.1f} seconds")


if __name__ == "__main__":
    main()
