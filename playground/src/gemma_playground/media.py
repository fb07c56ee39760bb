"""Files as OpenAI's content parts, and back: only what begins like a picture or a sound of known kinds."""

import base64
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

Part = dict[str, Any]
ENDINGS: Final = [
    f".{each}"
    for each in ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "wav", "mp3", "flac", "ogg")
]
_BEGINNINGS: Final = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpeg": rb"\xff\xd8\xff",
    "webp": rb"RIFF....WEBP",
    "gif": rb"GIF8[79]a",
    "bmp": rb"BM",
    "tiff": rb"II\*\0|MM\0\*",
    "wav": rb"RIFF....WAVE",
    "mp3": rb"ID3|\xff[\xe2-\xff]",
    "flac": rb"fLaC",
    "ogg": rb"OggS",
}
_SOUNDS: Final = ("wav", "mp3", "flac", "ogg")


class Refused(ValueError):
    """What a user gave is not taken; the text is a sentence that says why."""


def part(path: str, limit: int) -> Part:
    """A file of Gradio's cache. Raises Refused: none of the kinds, or larger than ``limit`` bytes."""
    file = Path(path)
    if file.stat().st_size > limit:
        raise Refused(f"{file.name} is larger than {limit // 2**20} MB, which is the limit.")
    return _part(file.read_bytes(), file.name)


def checked(given: Part, limit: int) -> Part:
    """A part of a file or of the browser's storage, made anew. Raises Refused, or what a wrong shape does."""
    if given["type"] == "text":
        return {"type": "text", "text": str(given["text"])}
    if given["type"] == "image_url" and not given["image_url"]["url"].startswith("data:"):
        raise Refused("A picture of this conversation is not inside it, and addresses are not fetched.")
    if len(encoded := _encoded(given)) > limit * 4 / 3 + 4:
        raise Refused(f"A file of this conversation is larger than {limit // 2**20} MB, which is the limit.")
    return _part(base64.b64decode(encoded, validate=True), "A file of this conversation")


def cached(given: Part) -> str:
    """The part's file in Gradio's cache, where the page may show it from."""
    return _cached(_encoded(given))


def _encoded(given: Part) -> str:
    sound = given["type"] == "input_audio"
    return str(given["input_audio"]["data"] if sound else given["image_url"]["url"].partition(",")[2])


def _part(data: bytes, name: str) -> Part:
    kind, encoded = _kind(data, name), base64.b64encode(data).decode()
    if kind in _SOUNDS:  # OpenAI has names for two; a FLAC or Ogg file says itself what it is.
        return {
            "type": "input_audio",
            "input_audio": {"data": encoded, "format": "mp3" if kind == "mp3" else "wav"},
        }
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{encoded}"}}


def _kind(data: bytes, name: str) -> str:
    for kind, beginning in _BEGINNINGS.items():
        if re.match(beginning, data, re.DOTALL):
            return kind
    raise Refused(
        f"{name} is not a picture (PNG, JPEG, WEBP, GIF, BMP, TIFF) or a sound (WAV, MP3, FLAC, OGG)."
    )


@lru_cache(64)
def _cached(encoded: str) -> str:
    data = base64.b64decode(encoded)
    return str(save_bytes_to_cache(data, f"file.{_kind(data, '')}", get_upload_folder()))
