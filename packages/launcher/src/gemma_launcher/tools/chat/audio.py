"""Audio given by path, read as a part of a message."""

import base64
import re
from pathlib import Path
from typing import Any, Final

from gemma_launcher.errors import CommandError
from gemma_launcher.tools.chat.images import read_file

_SIGNATURES: Final = (
    (re.compile(rb"RIFF....WAVE", re.DOTALL), "wav"),
    (re.compile(rb"fLaC"), "flac"),
    (re.compile(rb"OggS"), "ogg"),
    (re.compile(rb"ID3|\xff[\xe0-\xff]"), "mp3"),
)


def read_audio(path: Path) -> dict[str, Any]:
    """An audio file as a part of a message.

    Raises:
        CommandError: it cannot be read, is not audio, or is too large.
    """
    data = read_file(path)
    found = next((name for start, name in _SIGNATURES if start.match(data)), None)
    if found is None:
        raise CommandError(f"{path} is not audio in WAV, FLAC, Ogg or MP3 format")
    encoded = base64.b64encode(data).decode()
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": found}}
