"""Files for the tests to hand in."""

import json
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image, ImageDraw


def telling(max_tokens: int) -> str:
    """Settings for an answer of so many tokens: of random weights, any other may end at any time."""
    story = json.dumps({"type": "string", "minLength": 2500})
    return "?" + urlencode({"max_tokens": max_tokens, "response_format": "json_schema", "json_schema": story})


LONG = telling(4000)


def red_circle(folder: Path) -> Path:
    """A filled circle on white, 300×300 pixels: the demo model has words for it."""
    picture = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(picture).ellipse((60, 60, 240, 240), fill=(220, 40, 40))
    return _saved(picture, folder / "circle.png")


def square(folder: Path, name: str = "square.png", side: int = 50) -> Path:
    """A blue picture of so many pixels each way."""
    return _saved(Image.new("RGB", (side, side), "blue"), folder / name)


def broken(folder: Path) -> Path:
    """A PNG that begins well and ends too early."""
    return written(folder, "broken.png", square(folder).read_bytes()[:60])


def written(folder: Path, name: str, content: bytes | str) -> Path:
    """A file of this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _saved(picture: Image.Image, path: Path) -> Path:
    picture.save(path)
    return path
