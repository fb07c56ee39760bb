"""Pictures for requests."""

import base64
import io
import struct
import zlib

from PIL import Image


def data_uri(picture: Image.Image, fmt: str = "PNG") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, fmt)
    return f"data:image/{fmt.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks (kind, content), whatever they hold."""
    framed = (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def header(width: int, height: int) -> tuple[bytes, bytes]:
    """The IHDR chunk of an RGB picture."""
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
