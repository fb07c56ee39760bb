"""Images given by path: found in a line of text, and read as parts of a message."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from gemma_launcher.errors import CommandError

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".gif")
MAX_FILE_BYTES = 32 * 2**20  # the gateway's default limit, of audio as well
_SIGNATURES: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
_WORD = re.compile(r"'(?P<single>[^']+)'|\"(?P<double>[^\"]+)\"|(?P<plain>(?:\\.|[^\s'\"\\])+)")


def read_image(path: Path) -> dict[str, Any]:
    """An image file as a part of a message.

    Raises:
        CommandError: it cannot be read, is not an image, or is too large.
    """
    data = read_file(path)
    media_type = next((media_type for start, media_type in _SIGNATURES if start.match(data)), None)
    if media_type is None:
        raise CommandError(f"{path} is not an image in PNG, JPEG, WebP or GIF format")
    url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def read_file(path: Path) -> bytes:
    """The content of a file that is sent with a message.

    Raises:
        CommandError: it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CommandError(f"{path} is larger than {MAX_FILE_BYTES // 2**20} MiB")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise CommandError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None


def parse_path(text: str) -> Path:
    """A path as terminals insert it when a file is dropped: quoted, escaped, or a file: URI."""
    match = _WORD.fullmatch(text.strip())
    return _to_path(match) if match else Path(text.strip()).expanduser()


def extract_image_paths(line: str) -> tuple[str, list[Path]]:
    """A line without the paths of existing image files in it, and these paths."""
    words = [(match, _to_path(match)) for match in _WORD.finditer(line)]
    found = [(match, path) for match, path in words if _is_image_file(path)]
    if not found:
        return line, []
    text = "".join(_between(line, [match for match, _ in found]))
    return " ".join(text.split(" ")).strip(), [path for _, path in found]


def _between(line: str, matches: list["re.Match[str]"]) -> Iterator[str]:
    end = 0
    for match in matches:
        yield line[end : match.start()].rstrip(" ")
        end = match.end()
    yield line[end:]


def _to_path(match: "re.Match[str]") -> Path:
    quoted = match["single"] or match["double"]
    text = quoted or re.sub(r"\\(.)", r"\1", match["plain"])
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    return Path(text).expanduser()


def _is_image_file(path: Path) -> bool:
    try:
        return path.suffix.lower() in SUFFIXES and path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL character
        return False
