"""Which container an audio file has, by its first bytes."""

from typing import Final

FORMATS: Final = ("WAV", "FLAC", "MP3", "Ogg (Vorbis, Opus)", "M4A and MP4 (AAC)", "WebM")
NOT_AUDIO: Final = f"not audio in a supported format: {', '.join(FORMATS)}"
HEAD_BYTES: Final = 12
"""So many first bytes are needed."""
_ID3_HEADER: Final = 10


def demuxer(head: bytes) -> str | None:
    """FFmpeg's name of the container, or ``None``. FFmpeg's other 300 formats are never tried.

    Args:
        head: the first bytes of the file, after an ID3 tag if there is one.
    """
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[4:8] == b"ftyp":
        return "mov"
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0:  # the layer is 0 for AAC
        return "mp3" if head[1] & 0x06 else "aac"
    known = {b"fLaC": "flac", b"OggS": "ogg", b"\x1aE\xdf\xa3": "matroska"}
    return known.get(head[:4])


def id3_size(head: bytes) -> int:
    """Bytes of an ID3 tag at the beginning of a file, which MP3, AAC and FLAC files may have; 0: none."""
    if head[:3] != b"ID3" or len(head) < _ID3_HEADER:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return _ID3_HEADER + size
