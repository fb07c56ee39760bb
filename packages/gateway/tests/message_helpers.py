"""Messages and content parts as a client writes them."""

from base64 import b64encode
from io import BytesIO
from typing import Any

from PIL import Image


def png(width: int = 1, height: int = 1) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def image_part(url: str, **rest: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **rest}}


def audio_part(data: str, kind: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": kind}}


def file_part(**file: str) -> dict[str, Any]:
    return {"type": "file", "file": file}


def call(call_id: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name: str, parameters: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    schema = {} if parameters is None else {"parameters": parameters}
    return {"type": "function", "function": {"name": name, **schema, **rest}}
