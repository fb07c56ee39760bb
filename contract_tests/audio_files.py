"""Audio files for requests."""

import io
import struct
import wave


def float_wav(samples: list[float]) -> bytes:
    """A mono WAV file of 32-bit floats at 16 kHz."""
    data = struct.pack(f"<{len(samples)}f", *samples)
    head = (b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, 16_000, 64_000, 4, 32, b"data", len(data))
    return struct.pack("<4sI4s4sIHHIIHH4sI", *head) + data


def pcm_wav(samples: int) -> bytes:
    """A mono WAV file of 16-bit samples at 16 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(b"\x10\x10" * samples)
    return file.getvalue()
