"""Files and settings for the tests."""

import json
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image, ImageDraw


def story_settings(max_tokens: int) -> str:
    """Settings for a response of exactly ``max_tokens`` tokens; others may end earlier."""
    story = json.dumps({"type": "string", "minLength": 2500})
    return "?" + urlencode({"max_tokens": max_tokens, "response_format": "json_schema", "json_schema": story})


LONG = story_settings(4000)


def red_circle(folder: Path) -> Path:
    """A red circle on white, 300×300 pixels, which the demo model knows."""
    image = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(image).ellipse((60, 60, 240, 240), fill=(220, 40, 40))
    return _saved(image, folder / "circle.png")


def square(folder: Path, name: str = "square.png", side: int = 50) -> Path:
    """A blue square of ``side`` pixels."""
    return _saved(Image.new("RGB", (side, side), "blue"), folder / name)


def broken(folder: Path) -> Path:
    """A truncated PNG."""
    return written(folder, "broken.png", square(folder).read_bytes()[:60])


def written(folder: Path, name: str, content: bytes | str) -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _saved(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path
