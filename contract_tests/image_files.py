"""Image files for requests."""

import base64
import io
import struct
import zlib

from PIL import Image, ImageDraw


def data_uri(image: Image.Image, fmt: str = "PNG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, fmt)
    return f"data:image/{fmt.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with these chunks (kind, content)."""
    framed = (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def header(width: int, height: int) -> tuple[bytes, bytes]:
    """The IHDR chunk of an RGB image."""
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def red_square(fmt: str = "PNG") -> bytes:
    """A red square on white, as a file."""
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).rectangle((16, 16, 47, 47), fill=(220, 30, 30))
    file = io.BytesIO()
    image.save(file, fmt)
    return file.getvalue()
