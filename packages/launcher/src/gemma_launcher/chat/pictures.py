"""Pictures by path: recognised in a line, read, and made ready to be sent."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from gemma_launcher.errors import CannotStart

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".gif")
LARGEST = 32 * 2**20  # bytes; the gateway's own default limit
_KINDS: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
_WORD = re.compile(r"'(?P<single>[^']+)'|\"(?P<double>[^\"]+)\"|(?P<plain>(?:\\.|[^\s'\"\\])+)")


def read(path: Path) -> str:
    """A picture file as a data URI.

    Raises:
        CannotStart: it cannot be read, is none, or is too large.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise CannotStart(f"{path} is larger than {LARGEST // 2**20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise CannotStart(f"{path} cannot be read: {error.strerror}") from None
    kind = next((kind for start, kind in _KINDS if start.match(data)), None)
    if kind is None:
        raise CannotStart(f"{path} is no picture: PNG, JPEG, WebP and GIF are")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def as_path(text: str) -> Path:
    """What a terminal makes of a file that is dropped on it, as a path: quoted, escaped, or a file: URI."""
    match = _WORD.fullmatch(text.strip())
    return _path(match) if match else Path(text.strip()).expanduser()


def find(line: str) -> tuple[str, list[Path]]:
    """A line without the paths of picture files in it, and these paths.

    Only a path with the name of a picture and a file behind it counts; all else is text.
    """
    found = [(match, _path(match)) for match in _WORD.finditer(line)]
    pictures = [(match, path) for match, path in found if _is_picture(path)]
    text = "".join(_between(line, [match for match, _ in pictures]))
    return " ".join(text.split(" ")).strip() if pictures else line, [path for _, path in pictures]


def _between(line: str, matches: list["re.Match[str]"]) -> Iterator[str]:
    end = 0
    for match in matches:
        yield line[end : match.start()].rstrip(" ")
        end = match.end()
    yield line[end:]


def _path(match: "re.Match[str]") -> Path:
    quoted = match["single"] or match["double"]
    text = quoted or re.sub(r"\\(.)", r"\1", match["plain"])
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    return Path(text).expanduser()


def _is_picture(path: Path) -> bool:
    try:
        return path.suffix.lower() in SUFFIXES and path.is_file()
    except (OSError, ValueError):  # far too long, or with a zero in it
        return False
