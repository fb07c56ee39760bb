"""Segments as SubRip (``srt``) and WebVTT (``vtt``) subtitles."""

from collections.abc import Iterable

from gemma_gateway.transcription.transcript import Segment


def to_srt(segments: Iterable[Segment]) -> str:
    """Numbered subtitles."""
    blocks = (
        f"{number}\n{_times(segment, ',')}\n{_lines(segment.text)}\n"
        for number, segment in enumerate(segments, start=1)
    )
    return "\n".join(blocks)


def to_vtt(segments: Iterable[Segment]) -> str:
    """A WebVTT file, in whose texts ``&`` and ``<`` are escaped."""
    texts = (
        (segment, _lines(segment.text).replace("&", "&amp;").replace("<", "&lt;")) for segment in segments
    )
    return "\n".join(["WEBVTT\n", *(f"{_times(segment, '.')}\n{text}\n" for segment, text in texts)])


def _lines(text: str) -> str:
    """Without empty lines, which end a subtitle, and without the arrow, which begins one."""
    return "\n".join(filter(None, map(str.strip, text.splitlines()))).replace("-->", "->")


def _times(segment: Segment, point: str) -> str:
    start, end = segment.piece.seconds
    return f"{_time(start, point)} --> {_time(end, point)}"


def _time(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"
